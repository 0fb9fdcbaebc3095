"""What is known: cards, releases, recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: The compute capability that stands for "no NVIDIA GPU": the CPU target.
CPU_SM = 0
#: TensorRT-LLM's quant_algo of a checkpoint whose modules have formats of their own.
MIXED_PRECISION = "MIXED_PRECISION"

#: TensorRT-LLM's default list of what a quantization leaves alone; a list in config.json replaces it whole.
STAYS_16_BIT = (
    "*lm_head",
    "*router",
    "*vocab_embedding",
    "*position_embedding",
    "*block_embedding",
    "*shared_expert_gate",
)


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
    group_sizes: tuple[int, ...] = ()  # that kernels take, largest first
    dtype: str | None = None  # of what is not quantized; None: as asked
    layouts: tuple[str, ...] = ("trtllm", "hf")  # that have such tensors
    needs_calibration: bool = False
    exclude_modules: tuple[str, ...] = STAYS_16_BIT
    sms_by_flow: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # flow → SMs known to run it
    unverified_sms_by_flow: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # flow → SMs in doubt
    papers: tuple[str, ...] = ()
    notes: str = ""
