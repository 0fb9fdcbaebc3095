"""Which flow a GPU and a recipe can take in a release, or why none."""

from __future__ import annotations

from collections.abc import Iterable

from toolkit.errors import PlanInfeasible
from toolkit.specs import Choice, GpuSpec, ModelSpec, QuantRecipe, Release

#: flow → toolchain that compiles for it
TOOLCHAINS = {"engine": "trtllm", "openvino": "openvino"}
OPENVINO = "openvino"
ENGINE = "engine"


def choose_flow(
    gpu: GpuSpec, recipe: QuantRecipe, release: Release, *, asked: str, recipes: Iterable[QuantRecipe]
) -> tuple[str, tuple[Choice, ...]]:
    """Return the flow and why; raises PlanInfeasible with the reason and a recipe that works."""
    flow = _flow_for(gpu, release) if asked == "auto" else asked
    if (flow == OPENVINO) != gpu.is_cpu:
        raise PlanInfeasible(
            f"--flow {flow} does not run on {gpu.title}.", hint="Leave --flow out: it follows from --gpu."
        )
    if flow != OPENVINO and flow not in release.flows:
        raise PlanInfeasible(f"Release {release.name} has no {flow} flow.", hint="`trtk releases` shows the flows.")
    if gpu.sm in recipe.sms_by_flow.get(flow, ()):
        return flow, (Choice(name="flow", value=flow, reason=_flow_reason(gpu, release)),)
    if gpu.sm in recipe.unverified_sms_by_flow.get(flow, ()):
        doubt = f"nobody has confirmed {recipe.name} on sm_{gpu.sm} in this flow"
        return flow, (Choice(name="flow", value=flow, reason=doubt),)
    raise PlanInfeasible(_refusal(gpu, recipe, flow), hint=_way_out(gpu, recipe, flow, recipes))


def need_computable(model: ModelSpec, flow: str) -> None:
    """Raise PlanInfeasible when a flow's engine cannot compute what the model does."""
    if flow == OPENVINO and model.attention_softcap is not None:
        raise PlanInfeasible(
            f"The CPU engine cannot serve this {model.architecture}: it caps attention scores at "
            f"{model.attention_softcap:g}, and OpenVINO's paged attention has no such cap.",
            hint="Name an NVIDIA GPU with --gpu, or take a model without attn_logit_softcapping, such as Gemma 3.",
        )
    if flow == ENGINE:
        _need_known_rope(model)


def _need_known_rope(model: ModelSpec) -> None:
    """Raise PlanInfeasible for a rope that TensorRT-LLM's builder would replace by another without a word."""
    scaling = model.rope_scaling or {}
    rope_type, reason = scaling.get("rope_type"), None
    if scaling and model.rope_local_theta:
        reason = f"scales {rope_type} rope in its global layers alone, and the builder scales sliding layers with them"
    elif rope_type == "longrope" and model.architecture != "Phi3ForCausalLM":
        reason = "has longrope, which the builder knows for Phi-3 alone"
    elif rope_type == "yarn" and not scaling.get("truncate", True):
        reason = "has yarn without truncation, and the builder always truncates"
    if reason:
        raise PlanInfeasible(
            f"TensorRT-LLM's engine cannot compute this {model.architecture}: it {reason}.",
            hint="Try --gpu cpu, which computes it, or `trtk quantize --format hf` for the PyTorch backend.",
        )


def is_confirmed(gpu: GpuSpec, recipe: QuantRecipe, flow: str) -> bool:
    """Return whether the support matrix says yes, and not only perhaps."""
    return gpu.sm in recipe.sms_by_flow.get(flow, ())


def _flow_for(gpu: GpuSpec, release: Release) -> str:
    if gpu.is_cpu:
        return OPENVINO
    if ENGINE not in release.flows:
        raise PlanInfeasible(
            f"Release {release.name} (TensorRT-LLM {release.tensorrt_llm}) has no engine flow any more.",
            hint="`trtk releases` shows which have it.",
        )
    return ENGINE


def _flow_reason(gpu: GpuSpec, release: Release) -> str:
    if gpu.is_cpu:
        return "no NVIDIA GPU is needed"
    return f"TensorRT-LLM {release.tensorrt_llm} compiles it for sm_{gpu.sm}"


def _refusal(gpu: GpuSpec, recipe: QuantRecipe, flow: str) -> str:
    if gpu.is_cpu:
        return f"{recipe.name} does not run on the CPU."
    known = sorted(sm for sm in recipe.sms_by_flow.get(flow, ()) if sm)
    if not known:
        return f"{recipe.name} runs on no GPU in the {flow} flow."
    if gpu.sm < known[0]:
        return f"{recipe.name} needs sm_{known[0]} or newer; {gpu.title} is sm_{gpu.sm}."
    listing = ", ".join(f"sm_{sm}" for sm in known)
    return f"{recipe.name} runs on {listing} in the {flow} flow; {gpu.title} is sm_{gpu.sm}."


def _way_out(gpu: GpuSpec, recipe: QuantRecipe, flow: str, recipes: Iterable[QuantRecipe]) -> str:
    """Name recipes that do run there, those with as many weight bits first."""
    running = [other for other in recipes if is_confirmed(gpu, other, flow)]
    if not running:
        return f"No quantization is known to run on {gpu.title}; `trtk gpus` lists cards, and --gpu cpu always works."
    running.sort(key=lambda other: (abs(other.weight_bits - recipe.weight_bits), other.weight_bits, other.name))
    return f"Try --quant {' or --quant '.join(other.name for other in running[:2])} on {gpu.name}."
