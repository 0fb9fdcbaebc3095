"""The nouns that rooms hand each other: frozen, keyword-only, JSON in and out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

#: How long work reports how far it is: (step, done, total), in whatever unit the step counts.
Progress = Callable[[str, float, float], None]

#: The compute capability that stands for "no NVIDIA GPU": the CPU target.
CPU_SM = 0


#: TensorRT-LLM's default list of what a quantization leaves alone; a list in config.json replaces it whole.
STAYS_16_BIT = (
    "*lm_head",
    "*router",
    "*vocab_embedding",
    "*position_embedding",
    "*block_embedding",
    "*shared_expert_gate",
)


def no_progress(step: str, done: float, total: float) -> None:
    """Report to nobody."""


@dataclass(frozen=True, kw_only=True)
class GpuSpec:
    """A card, or `cpu`. Rates are dense, per GPU; usable memory is what a process can allocate."""

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    sm: int  # 86 for compute capability 8.6; CPU_SM for the CPU
    memory_gib: float = 0.0  # nominal; 0 where it is the host's
    memory_usable_mib: int = 0
    is_memory_measured: bool = False  # False: usable is estimated as a share of nominal
    memory_type: str = ""
    bandwidth_gb_per_s: float = 0.0
    dense_tflops: Mapping[str, float] = field(default_factory=dict)  # fp16, fp16_acc16, fp8, int8, fp4
    nvlink_gb_per_s: float = 0.0  # both directions
    pcie: str = ""
    tdp_w: float = 0.0
    ecc: str = ""
    sm_count: int = 0
    boost_mhz: float = 0.0
    l2_mb: float = 0.0
    sources: tuple[str, ...] = ()
    confidence: str = ""
    notes: str = ""

    @property
    def is_cpu(self) -> bool:
        """Whether this is the CPU target."""
        return self.sm == CPU_SM

    @property
    def compute_capability(self) -> str:
        """`8.6` for sm_86, empty for the CPU."""
        return "" if self.is_cpu else f"{self.sm // 10}.{self.sm % 10}"


@dataclass(frozen=True, kw_only=True)
class Release:
    """One Triton container release: what is inside it, and which flows it can run."""

    name: str  # "26.07"
    image: str  # nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3
    triton: str
    tensorrt_llm: str
    tensorrt: str
    cuda: str
    python: str
    flows: tuple[str, ...]  # engine, llmapi
    is_default: bool = False
    is_security_floor_met: bool = False
    sources: tuple[str, ...] = ()
    notes: str = ""


@dataclass(frozen=True, kw_only=True)
class QuantRecipe:
    """How weights, activations and the KV cache are stored, and where that can run."""

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    quant_algo: str | None  # TensorRT-LLM's name; None leaves the model in 16 bits
    weight_bits: int
    activation_bits: int
    default_group_size: int | None = None  # None: one scale per output channel or per tensor
    needs_calibration: bool = False
    exclude_modules: tuple[str, ...] = STAYS_16_BIT
    sms_by_flow: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # flow → SMs known to run it
    unverified_sms_by_flow: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # flow → SMs in doubt
    papers: tuple[str, ...] = ()
    notes: str = ""

    @property
    def min_sm_by_flow(self) -> dict[str, int]:
        """The lowest SM of each flow that has one."""
        return {flow: min(sms) for flow, sms in self.sms_by_flow.items() if sms}


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A decoder-only model's shape: what the planner, the converter and the toolchains need to know."""

    family: str
    architecture: str  # HF's architectures[0], also TensorRT-LLM's
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    activation: str  # silu, gelu_pytorch_tanh, ...
    norm_eps: float
    rope_theta: float
    rope_scaling: Mapping[str, Any] | None = None  # HF's dict, with rope_type
    max_position_embeddings: int
    sliding_window: int | None = None
    has_qkv_bias: bool = False
    has_output_bias: bool = False  # attention.dense
    has_mlp_bias: bool = False
    is_tied: bool = False  # lm_head is the embedding
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
    dtype: str = "bfloat16"  # of the original weights


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model's files are, and exactly which version they are."""

    name: str  # what the user typed: demo, org/name or a path
    path: str  # a folder with config.json and *.safetensors
    revision: str  # a commit, a wheel's sha256, or "local"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an engine is built for."""

    max_batch_size: int
    max_seq_len: int
    max_num_tokens: int
    tp: int = 1
    pp: int = 1


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One decided setting and the reason for it, shown by --dry-run and kept in the manifest."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class CalibrationSpec:
    """The text that activations are measured on; the same spec gives the same bytes."""

    source: str  # "self": generated by the model; else the path of a text file
    text_sha256: str | None = None  # of the file
    samples: int
    length: int  # tokens per sample
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """Everything a checkpoint's bytes depend on, besides the source weights."""

    model: ModelSpec
    recipe: QuantRecipe
    group_size: int | None
    dtype: str  # of what is not quantized: float16, bfloat16
    calibration: CalibrationSpec | None
    device: str = "cpu"
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """Everything a build depends on; `plan_id` is the hash of it."""

    plan_id: str
    gpu: GpuSpec
    conversion: ConversionPlan
    release: Release
    flow: str  # engine, llmapi, openvino
    toolchain: str  # trtllm, llmapi, openvino
    builder: str  # local, defer, ...
    limits: Limits
    weights_bytes: int
    kv_bytes_per_token: int
    kv_bytes: int  # of the KV pool: what is left of the GPU, or what the CPU engine takes
    build_flags: tuple[Choice, ...] = ()  # of trtllm-build, without dashes
    choices: tuple[Choice, ...] = ()


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


@dataclass(frozen=True, kw_only=True)
class LoadProfile:
    """A load test, fully said: the same profile and seed send the same requests."""

    url: str  # grpc://host:port, http://host:port
    model: str = "ensemble"
    concurrency: int = 1
    requests: int | None = None  # stop after so many; exactly one of requests and duration_s is set
    duration_s: float | None = None
    isl: int = 128  # input tokens asked for
    osl: int = 64  # output tokens asked for
    is_streaming: bool = True
    is_eos_ignored: bool = True  # generate exactly osl tokens where the server can
    warmup_requests: int = 0
    prompts: tuple[str, ...] = ()  # empty: made from the seed
    timeout_s: float = 120.0
    seed: int = 0
    arrival: str = "closed"  # the load shape
    slos: tuple[str, ...] = ()  # ttft=500ms@p95
    price: str | None = None  # 0.35EUR/h


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """One request of a load test. Times are seconds since the run's start, on the client's monotonic clock."""

    request_id: str
    scheduled_s: float
    sent_s: float
    first_token_s: float | None
    last_token_s: float | None
    end_s: float
    input_tokens: int
    output_tokens: int
    first_chunk_tokens: int
    chunks: int
    outcome: str  # ok, failed, cancelled
    error: str | None = None  # kind, for the count by kind
    message: str | None = None  # what the server or the network said
    token_count_source: str = "server"  # where output_tokens comes from: server, chunks, tokenizer


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """What a load test found; `document` has exactly the keys of report.json."""

    document: Mapping[str, Any]
    records: tuple[RequestRecord, ...]


def to_json(noun: Any) -> Any:
    """Return a noun as plain JSON values."""
    if dataclasses.is_dataclass(noun) and not isinstance(noun, type):
        return {item.name: to_json(getattr(noun, item.name)) for item in dataclasses.fields(noun)}
    if isinstance(noun, Mapping):
        return {str(key): to_json(value) for key, value in noun.items()}
    if isinstance(noun, (list, tuple)):
        return [to_json(value) for value in noun]
    return noun


def from_json(kind: type[T], document: Mapping[str, Any]) -> T:
    """Return a noun from plain JSON values; nested nouns and tuples are rebuilt from the annotations."""
    hints = _hints(kind)
    return kind(**{name: _rebuilt(hints[name], value) for name, value in document.items() if name in hints})


def _hints(kind: type) -> dict[str, Any]:
    import typing

    return typing.get_type_hints(kind)


def _rebuilt(hint: Any, value: Any) -> Any:
    import typing

    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_rebuilt(arguments[0], item) for item in value)
    if isinstance(value, Mapping) and len(arguments) == 2:
        return {key: _rebuilt(arguments[1], item) for key, item in value.items()}
    return value
