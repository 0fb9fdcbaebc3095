"""What was made, and what serves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.specs.json_values import from_json

#: Of manifest.json; a reader refuses another.
MANIFEST_SCHEMA = 1


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
    evaluation: Mapping[str, Any] | None = None  # of the checkpoint, where a quality gate asked for it
    build_id: str = ""  # hash of the plan, of every source file and of the code: the same id, the same bytes
    reused: tuple[str, ...] = ()  # what was taken from the cache: checkpoint, engine


def manifest_from_json(document: Any) -> EngineManifest:
    """Return the manifest that a JSON document is; raises ValueError with what is wrong for one that is none."""
    fields = document if isinstance(document, Mapping) else {}
    version, files = fields.get("schema_version"), fields.get("files")
    if version != MANIFEST_SCHEMA:
        raise ValueError(f"its schema_version is {version!r}, not {MANIFEST_SCHEMA}")
    objects = ("plan", "model", "durations_s", "tool_versions")
    faults = [name for name in objects if not isinstance(fields.get(name), Mapping)]
    if not (isinstance(files, list) and all(isinstance(record, Mapping) for record in files)):
        faults.append("files")
    if faults:
        raise ValueError(f"its {', '.join(faults)} are not what a manifest has there")
    try:
        return from_json(EngineManifest, fields)
    except TypeError as error:
        raise ValueError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class RepositorySpec:
    """What a Triton model repository says; paths are as the server sees them."""

    layout: str  # inflight_batcher, llmapi
    engine_backend: str  # "openvino": our Python-backend engine; "tensorrtllm": NVIDIA's C++ backend; "llmapi"
    tokenizer_dir: str  # absolute, or relative to the model repository
    engine_dir: str  # absolute, or relative to the model repository; of llmapi, the checkpoint
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
    engine_parameters: Mapping[str, str] = field(default_factory=dict)  # of tensorrt_llm, for what its engine can
    llm_api: Mapping[str, Any] = field(default_factory=dict)  # keys of model.yaml, dotted


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
    is_remote_allowed: bool = False  # True: it may listen beyond loopback


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
