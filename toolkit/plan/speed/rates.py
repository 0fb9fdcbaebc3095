"""How long a card takes for a byte, an operation, a message: its datasheet times what its architecture reaches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.errors import PlanInfeasible
from toolkit.plan.speed.shapes import Shape
from toolkit.specs import (
    ArchitectureRates,
    Calibration,
    GpuSpec,
    LinkRates,
    ModelSpec,
    QuantRecipe,
    ServerSetup,
    SpeedConstants,
)

TERA, GIGA, MICRO = 1e12, 1e9, 1e-6
FP16, FP8, INT8, FP4 = "fp16", "fp8", "int8", "fp4"
#: TensorRT-LLM's names of what multiplies in fewer than 16 bits.
PRECISIONS = {
    "FP8": FP8,
    "FP8_PER_CHANNEL_PER_TOKEN": FP8,
    "FP8_BLOCK_SCALES": FP8,
    "W4A8_AWQ": FP8,
    "W8A8_SQ_PER_CHANNEL": INT8,
    "NVFP4": FP4,
}
#: The toolchain whose models PyTorch runs: other kernels, and a slower host in front of them.
PYTORCH = "llmapi"
#: A vocabulary of which the cost of sampling was measured.
MEASURED_VOCAB = 128256
ACTIVATION_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds for each unit of work on one rank."""

    weight_byte: float
    kv_byte: float
    kv_element: float
    flop: float
    expert_flop: float
    head_flop: float
    attention_flop: float
    token: float  # what is done to a token besides products, all layers
    expert_token: float  # the same, for the copies of it that its experts read and write
    message: float  # every step: all-reduces of all layers
    wire_token: float  # a token's bytes on the wire, all layers
    step: float
    launch: float  # all layers' kernels
    sequence: float
    vocabulary: float  # sampling, for a sequence
    slowdown: float = 1.0  # of everything: an old release
    request: float = 0.0  # once for each: what surrounds the steps that read its prompt


@dataclass(frozen=True, kw_only=True)
class Basis:
    """Rates, and how sure they are."""

    rates: Rates
    log_sd: dict[str, float]  # by part of a step
    provenance_rows: int
    is_precision_seen: bool


def precision_of(recipe: QuantRecipe, gpu: GpuSpec) -> str:
    """Return what the card multiplies in; weights alone in fewer bits are widened before."""
    wanted = PRECISIONS.get(recipe.quant_algo or "", FP16)
    return wanted if gpu.dense_tflops.get(wanted) else FP16


def architecture_of(gpu: GpuSpec, constants: SpeedConstants) -> ArchitectureRates:
    """Return the rates of a card's architecture; the nearest older one stands in for an unknown."""
    known = [rates for rates in constants.architectures if gpu.sm in rates.sms]
    if known:
        return known[0]
    older = [rates for rates in constants.architectures if min(rates.sms) <= gpu.sm]
    return max(older, key=lambda rates: min(rates.sms)) if older else constants.architectures[0]


def release_of(setup: ServerSetup) -> str:
    """Return what speed may change with: the engine, and its version as far as releases with a page of figures go."""
    return " ".join((setup.engine, ".".join(setup.tensorrt_llm.split(".")[:2])))


def power_share(gpu: GpuSpec, architecture: ArchitectureRates) -> float:
    """Return what a small power budget leaves of the matrix units: clocks fall with about the root of what is missing.

    An L4 has 0.60 W for each TFLOPS of its peak where an L40S has 0.97, an H100 PCIe 0.46 and an SXM 0.71.
    """
    wanted = architecture.watts_per_tflop * gpu.dense_tflops.get(FP16, 0.0)
    return min(1.0, gpu.tdp_w / wanted) ** 0.5 if gpu.tdp_w and wanted else 1.0


def basis_of(setup: ServerSetup, shape: Shape, constants: SpeedConstants) -> Basis:
    """Return the rates of a card that nobody has measured here."""
    gpu, shared = setup.gpu, constants.shared
    peak_fp16 = gpu.dense_tflops.get(FP16, 0.0) * TERA
    if gpu.is_cpu or not peak_fp16 or not gpu.bandwidth_gb_per_s:
        return _host_basis(shared, shape)
    architecture = architecture_of(gpu, constants)
    precision = precision_of(setup.recipe, gpu)
    bandwidth = gpu.bandwidth_gb_per_s * GIGA
    # A precision with no share of its own reaches what fp16 does.
    share = architecture.compute.get(precision, architecture.compute[FP16]) * power_share(gpu, architecture)
    flop = 1.0 / (gpu.dense_tflops[precision] * TERA * share)
    is_widened = precision == FP16 and setup.recipe.weight_bits < 16
    if is_widened:
        flop *= shared["dequantization"]
    host = 1.0
    if setup.engine == PYTORCH:
        flop *= shared["torch_compute"]
        host = shared["torch_host"]
    head = 1.0 / (peak_fp16 * architecture.compute[FP16] * power_share(gpu, architecture))
    rates = Rates(
        weight_byte=1.0 / (bandwidth * architecture.bandwidth),
        kv_byte=1.0 / (bandwidth * architecture.kv_bandwidth),
        kv_element=2.0 / (peak_fp16 * shared["single_query"]),
        flop=flop,
        expert_flop=flop / shared["mixture"],
        head_flop=head,
        attention_flop=1.0 / (peak_fp16 * architecture.attention * power_share(gpu, architecture)),
        token=shared["passes"] * shape.layers * shape.hidden * ACTIVATION_BYTES / bandwidth * (0.3 + 0.7 / shape.tp),
        expert_token=shared["expert_passes"] * shape.expert_rows * shape.hidden * ACTIVATION_BYTES / bandwidth,
        step=shared["step_us"] * MICRO * host,
        launch=shared["launch_us"] * MICRO * shape.layers * host,
        sequence=shared["sequence_us"] * MICRO,
        vocabulary=shared["sampling_us"] * MICRO * shape.vocab / MEASURED_VOCAB,
        slowdown=_slowdown(setup.tensorrt_llm, constants),
        request=shared["request_us"] * MICRO,
        **_messages(shape, link_of(gpu, constants), shared),
    )
    log_sd = _log_sd(architecture, constants, precision, is_widened=is_widened)
    log_sd["compute"] = math.hypot(log_sd["compute"], math.log(power_share(gpu, architecture)) / 2)
    is_seen = not is_widened and architecture.log_sd.get(precision, 1.0) < constants.log_sd["unseen"]
    return Basis(rates=rates, log_sd=log_sd, provenance_rows=architecture.rows, is_precision_seen=is_seen)


def shape_key(model: ModelSpec) -> tuple[int, ...]:
    """Return what tells a model that was measured from another: layers, hidden size, MLP size, vocabulary."""
    return (model.num_layers, model.hidden_size, model.intermediate_size, model.vocab_size)


def is_own(found: Calibration, setup: ServerSetup) -> bool:
    """Return whether a calibration is of this very model and of kernels for its format."""
    return found.shape == shape_key(setup.model) and found.quant_algo == (setup.recipe.quant_algo or "")


def calibrated(basis: Basis, found: Calibration, setup: ServerSetup) -> Basis:
    """Return the rates with a card's own three constants in their place.

    Of another model or format, arithmetic and overhead are off from what was expected by as much as the measured ones:
    FP8 multiplies faster than what was measured in FP16, and eighty layers are launched longer than thirty.
    """
    old, gpu = basis.rates, setup.gpu
    flop, byte = 1.0 / (found.compute_tflops * TERA), 1.0 / (found.bandwidth_gb_per_s * GIGA)
    step = found.step_ms / 1e3
    if not is_own(found, setup) and found.known_tflops and found.known_step_ms:
        flop = old.flop * found.known_tflops / found.compute_tflops
        step = (old.step + old.launch) * found.step_ms / found.known_step_ms
    rates = {name: getattr(old, name) for name in Rates.__dataclass_fields__}
    rates |= {
        "flop": flop,
        "expert_flop": flop * old.expert_flop / old.flop,
        "head_flop": flop * old.head_flop / old.flop,
        "attention_flop": flop * old.attention_flop / old.flop,
        "weight_byte": byte,
        "kv_byte": byte * old.kv_byte / old.weight_byte,
        "step": step,
        "launch": 0.0,
        "slowdown": 1.0,
    }
    if gpu.is_cpu:
        rates |= {"sequence": 0.0, "vocabulary": 0.0, "token": 0.0, "expert_token": 0.0, "kv_element": 0.0}
    log_sd = dict.fromkeys(basis.log_sd, found.log_sd)
    log_sd["communication"] = basis.log_sd["communication"]
    return Basis(rates=Rates(**rates), log_sd=log_sd, provenance_rows=len(found.points), is_precision_seen=True)


def link_of(gpu: GpuSpec, constants: SpeedConstants) -> LinkRates:
    """Return how the cards of one server talk: NVLink where a switch joins them all, else PCIe."""
    links = {link.name: link for link in constants.links}
    if gpu.nvlink_gb_per_s >= 1800:
        return links["nvlink5"]
    if gpu.nvlink_gb_per_s >= 900:
        return links["nvlink4"]
    if gpu.nvlink_gb_per_s >= 600 and "SXM" in gpu.pcie:
        return links["nvlink3"]
    return links[f"pcie{gpu.pcie[0]}"] if f"pcie{gpu.pcie[:1]}" in links else links["pcie4"]


def _messages(shape: Shape, link: LinkRates, shared: Mapping[str, float]) -> dict[str, float]:
    """Return the cost of two all-reduces a layer, and of handing a batch to the next stage."""
    message = wire = 0.0
    token_bytes = shape.hidden * ACTIVATION_BYTES
    if shape.tp > 1:
        ranks = min((int(count) for count in link.start_us), key=lambda count: abs(count - shape.tp))
        if shape.tp > 8:
            raise PlanInfeasible(f"--tp {shape.tp} spans servers; the time model ends at 8 ranks.", hint="Try --tp 8.")
        rate = link.gb_per_s[str(ranks)] * GIGA
        message = 2 * shape.layers * link.start_us[str(ranks)] * MICRO * shared["message_start"]
        wire = 2 * shape.layers * 2 * (shape.tp - 1) / shape.tp * token_bytes / rate
    if shape.pp > 1:
        message += shared["stage_us"] * MICRO
        wire += token_bytes / (link.gb_per_s["2"] * GIGA)
    return {"message": message, "wire_token": wire}


def _slowdown(version: str, constants: SpeedConstants) -> float:
    """Return what a release older than the newest of the published figures costs."""
    if not version:
        return 1.0
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return constants.shared["before_0.17"] if numbers < (0, 17) else 1.0


def _log_sd(
    architecture: ArchitectureRates, constants: SpeedConstants, precision: str, *, is_widened: bool
) -> dict[str, float]:
    compute = architecture.log_sd.get(precision, constants.log_sd["unseen"])
    if is_widened:
        compute = max(compute, constants.log_sd["dequantization"])
    return {
        "compute": compute,
        "attention": architecture.log_sd["attention"],
        "bandwidth": architecture.log_sd["bandwidth"],
        "kv": architecture.log_sd["kv_bandwidth"],
        "communication": constants.log_sd["communication"],
        "overhead": constants.log_sd["overhead"],
    }


def _host_basis(shared: Mapping[str, float], shape: Shape) -> Basis:
    """Return rates of a machine without a datasheet; they want a calibration."""
    flop = 1.0 / (shared["host_tflops"] * TERA)
    byte = 1.0 / (shared["host_gb_per_s"] * GIGA)
    rates = Rates(
        weight_byte=byte,
        kv_byte=byte,
        kv_element=0.0,
        flop=flop,
        expert_flop=flop,
        head_flop=flop,
        attention_flop=flop,
        token=0.0,
        expert_token=0.0,
        message=0.0,
        wire_token=0.0,
        step=shared["host_step_us"] * MICRO,
        launch=shared["host_launch_us"] * MICRO * shape.layers,
        sequence=0.0,
        vocabulary=0.0,
    )
    assert shape.tp == shape.pp == 1, "a host has one rank"
    sd = dict.fromkeys(("compute", "attention", "bandwidth", "kv", "communication", "overhead"), 0.6)
    return Basis(rates=rates, log_sd=sd, provenance_rows=0, is_precision_seen=False)
