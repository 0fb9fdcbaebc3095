"""What a Triton model repository says, and what was asked of it beyond its plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RepositorySettings:
    """Settings of a repository's models that a user gave; what is not here follows from the plan."""

    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # model → key → value
    instances: Mapping[str, int] = field(default_factory=dict)  # model → its instances
    max_queue_size: int | None = None  # requests that wait for a model; 0: unlimited
    max_queue_delay_microseconds: int | None = None
    is_streaming: bool = True
    model_name: str = ""  # of the LLM API's one model


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
    tensorrt_llm: str = "1.2.1"  # version of the release that serves it: it knows some parameters and not others
    max_beam_width: int = 1
    dtype: str = "float16"
    logits_dtype: str = "float32"
    is_decoupled: bool = True  # streaming
    max_queue_size: int = 0  # 0: unlimited
    max_queue_delay_microseconds: int = 0
    instances: Mapping[str, int] = field(default_factory=dict)  # model → its instances; one where it is not named
    ranks: int = 1  # GPUs of one instance: tp * pp
    kv_cache_free_gpu_mem_fraction: float = 0.9
    kv_cache_bytes: int = 0  # CPU engine: size of the KV pool
    is_kv_cache_reuse_enabled: bool = True
    is_chunked_context_enabled: bool = True
    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # over what the layout says
    draft_engine_dir: str = ""  # of a model that proposes tokens
    model_name: str = "ensemble"  # of llmapi's one model
    llm_api: Mapping[str, Any] = field(default_factory=dict)  # keys of model.yaml, dotted
    files: Mapping[str, str] = field(default_factory=dict)  # further ones: path in the repository → text
