"""What a prediction of speed stands on: a server's shape, what kinds of cards reach, what was measured on one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from toolkit.specs.catalogue import GpuSpec, QuantRecipe
from toolkit.specs.model import ModelSpec
from toolkit.specs.plans import Limits


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """Speculative decoding: tokens are proposed cheaply and checked together."""

    draft_tokens: int  # proposed in each step
    acceptance: float  # chance that a proposed token is kept, given that those before it were
    draft_cost: float = 0.0  # of one proposed token, as a share of a plain decoding step


@dataclass(frozen=True, kw_only=True)
class ServerSetup:
    """One server: tp x pp cards that hold one copy of a model."""

    model: ModelSpec
    gpu: GpuSpec
    recipe: QuantRecipe
    limits: Limits
    kv_capacity_tokens: float  # that all requests in flight share, windows counted for requests like the workload's
    kv_element_bytes: int = 2
    is_chunked: bool = True  # long prompts are read in pieces of max_num_tokens
    speculation: Speculation | None = None
    tensorrt_llm: str = ""  # empty: a release newer than every published figure
    engine: str = ""  # the toolchain that runs it: openvino, trtllm, llmapi; empty: whichever


@dataclass(frozen=True, kw_only=True)
class ArchitectureRates:
    """What TensorRT-LLM reaches on one kind of card, as shares of the card's dense peaks."""

    name: str  # hopper
    sms: tuple[int, ...]
    compute: Mapping[str, float]  # fp16, fp8, int8, fp4
    bandwidth: float  # of weights
    kv_bandwidth: float  # of keys and values
    attention: float  # of the fp16 peak, over a prompt's keys
    log_sd: Mapping[str, float]  # of each precision's compute, and of bandwidth, kv_bandwidth, attention
    watts_per_tflop: float = 0.0  # of the cards behind it, by fp16 peak: who has less slows down before its peak
    rows: int = 0  # published figures behind it; 0: taken from its neighbours
    notes: str = ""


@dataclass(frozen=True, kw_only=True)
class LinkRates:
    """All-reduce between the ranks of one layer: seconds = start + bytes on the wire / rate."""

    name: str  # nvlink4, pcie4
    start_us: Mapping[str, float]  # by ranks
    gb_per_s: Mapping[str, float]  # by ranks
    rows: int = 0


@dataclass(frozen=True, kw_only=True)
class SpeedConstants:
    """Everything the time model was fitted to; few numbers, each with a meaning."""

    fitted_on: str  # a date
    rows: int
    sources: tuple[str, ...]
    architectures: tuple[ArchitectureRates, ...]
    links: tuple[LinkRates, ...]
    shared: Mapping[str, float]  # costs that no card changes: host, launches, corners of the roofline
    log_sd: Mapping[str, float]  # of links, overhead, of what no constant explains, and of memory
    releases: tuple[str, ...] = ()  # that the rows are of, as toolkit.plan.speed.rates.release_of names them
    errors: Mapping[str, float] = field(default_factory=dict)  # held out, as benchmarks/planner_accuracy.py found them


@dataclass(frozen=True, kw_only=True)
class CalibrationPoint:
    """One measured load of a live server."""

    concurrency: int
    isl: float
    osl: float
    output_tps: float
    ttft_ms: float
    tpot_ms: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What one card and engine reached; absolute, so that a CPU without a datasheet has them too."""

    gpu: str
    engine: str  # openvino, trtllm, llmapi, ...
    recipe: str
    quant_algo: str = ""  # of the recipe: recipes that share it run the same kernels
    model: str
    #: Layers, hidden size, MLP size and vocabulary of that model; empty in files that do not say it.
    shape: tuple[int, ...] = ()
    compute_tflops: float
    bandwidth_gb_per_s: float
    step_ms: float  # of every step, whatever its batch
    log_sd: float  # of the points around the fitted curve
    points: tuple[CalibrationPoint, ...]
    #: What was expected of compute_tflops and step_ms before: what another model or format is scaled by. 0: not known.
    known_tflops: float = 0.0
    known_step_ms: float = 0.0
    #: Requests in flight → factor of a step's time that the three constants do not explain; between them, a line.
    bends: tuple[tuple[float, float], ...] = ()
    #: Requests in flight → prompts that are read by the time that one is: clients that begin together keep step.
    crowds: tuple[tuple[float, float], ...] = ()
    date: str
    versions: Mapping[str, str] = field(default_factory=dict)
