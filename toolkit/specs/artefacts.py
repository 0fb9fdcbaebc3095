"""What was made, and what serves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file of an artefact: its path below the artefact's folder, size and hash."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class EngineManifest:
    """What a build made, written last: if it is there, the artefact is whole."""

    schema_version: int
    kind: str  # checkpoint, trtllm, llmapi, openvino
    name: str
    plan: Mapping[str, Any]
    model: Mapping[str, Any]  # name, revision, sha256 of every source shard
    files: tuple[FileRecord, ...]
    durations_s: Mapping[str, float]
    tool_versions: Mapping[str, str]
    is_deferred: bool = False  # True: the engine is compiled on the target, at first start


@dataclass(frozen=True, kw_only=True)
class RepositorySpec:
    """What a Triton model repository says; paths are as the server sees them."""

    layout: str  # inflight_batcher
    engine_backend: str  # "openvino": our Python-backend engine; "tensorrtllm": NVIDIA's C++ backend
    tokenizer_dir: str  # absolute, or relative to the model repository
    engine_dir: str  # absolute, or relative to the model repository
    max_batch_size: int
    max_seq_len: int
    max_num_tokens: int
    max_beam_width: int = 1
    dtype: str = "float16"
    logits_dtype: str = "float32"
    is_decoupled: bool = True  # streaming
    max_queue_size: int = 0  # 0: unlimited
    max_queue_delay_microseconds: int = 0
    preprocessing_instances: int = 1
    postprocessing_instances: int = 1
    bls_instances: int = 1
    kv_cache_free_gpu_mem_fraction: float = 0.9
    kv_cache_bytes: int = 0  # CPU engine: size of the KV pool
    max_tokens_in_paged_kv_cache: int | None = None
    is_kv_cache_reuse_enabled: bool = True
    is_chunked_context_enabled: bool = True
    batch_scheduler_policy: str = "guaranteed_no_evict"
    num_threads: int = 0  # CPU engine: 0 takes every core


@dataclass(frozen=True, kw_only=True)
class ServeSpec:
    """One server to start."""

    name: str
    repository: str
    backend: str  # embedded
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    startup_timeout_s: float = 180.0
    exit_timeout_s: float = 10.0
    probe_model: str = "ensemble"  # asked for one token before the server counts as ready


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """What a running server is to a client."""

    name: str
    http_url: str  # http://127.0.0.1:8000
    grpc_url: str  # 127.0.0.1:8001
    metrics_url: str  # http://127.0.0.1:8002/metrics
    pid: int
    log_path: str
    started_at: str  # ISO 8601, UTC
    spec: ServeSpec
