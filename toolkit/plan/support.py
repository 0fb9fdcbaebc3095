"""Which flow a GPU and a recipe can take in a release, or why none, and what would work instead."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from toolkit.errors import PlanInfeasible
from toolkit.plan import computable
from toolkit.specs import CPU_SM, BuildTool, Choice, GpuSpec, LlmApi, ModelSpec, QuantRecipe, Release

ENGINE, LLMAPI, OPENVINO = "engine", "llmapi", "openvino"
AUTO = "auto"
#: flow → toolchain that makes what it serves
TOOLCHAINS = {ENGINE: "trtllm", LLMAPI: "llmapi", OPENVINO: "openvino"}
#: What `--flow auto` asks, in this order: compiled engines first, while releases have them.
GPU_FLOWS = (ENGINE, LLMAPI)
YES, UNVERIFIED, NO = "yes", "unverified", "no"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where and how an engine is to run."""

    gpu: GpuSpec
    release: Release
    flow: str = AUTO
    flow_choice: Choice | None = None  # set: FLOW was decided, for this reason
    tool: BuildTool | None = None  # of the release; None where trtk does not know its trtllm-build
    api: LlmApi | None = None  # of the release
    default_release: Release | None = None  # what `--release auto` means, for hints


def resolve(
    target: Target, recipe: QuantRecipe, *, recipes: Iterable[QuantRecipe], model: ModelSpec | None = None
) -> Target:
    """Return TARGET with its flow decided and why; raises PlanInfeasible with the reason and a way out."""
    if target.flow_choice:
        return target
    flows = _flows(target)
    tried = [flow for flow in flows if target.flow in {AUTO, flow}]
    for wanted in (YES, UNVERIFIED):
        for flow in tried:
            if verdict(target.gpu, recipe, flow) == wanted and not _fault(model, recipe, flow):
                choice = Choice(name="flow", value=flow, reason=_reason(target, recipe, flow, model))
                return dataclasses.replace(target, flow=flow, flow_choice=choice)
    raise PlanInfeasible(
        _refusal(target, recipe, model, tried), hint=_hint(target, recipe, recipes=list(recipes), model=model)
    )


def verdict(gpu: GpuSpec, recipe: QuantRecipe, flow: str) -> str:
    """Return what the support matrix says of a recipe on a GPU in a flow: yes, unverified or no."""
    if gpu.sm in recipe.sms_by_flow.get(flow, ()):
        return YES
    return UNVERIFIED if gpu.sm in recipe.unverified_sms_by_flow.get(flow, ()) else NO


def runs(target: Target, recipe: QuantRecipe, model: ModelSpec | None) -> bool:
    """Return whether a recipe is known to run as TARGET says."""
    return _runs(target, recipe, YES, model)


def _flows(target: Target) -> tuple[str, ...]:
    """Return the flows that a GPU and a release have together, in the order of `auto`."""
    if target.gpu.is_cpu:
        return (OPENVINO,)
    known = {ENGINE: target.tool is not None, LLMAPI: target.api is not None}
    return tuple(flow for flow in GPU_FLOWS if flow in target.release.flows and known[flow])


def _fault(model: ModelSpec | None, recipe: QuantRecipe, flow: str) -> str | None:
    return computable.fault(model, recipe, flow) if model else None


def _reason(target: Target, recipe: QuantRecipe, flow: str, model: ModelSpec | None) -> str:
    """Return why a flow was taken: what it is, what stood against an earlier one, and what nobody has confirmed."""
    gpu, release = target.gpu, target.release
    if flow == OPENVINO:
        return "no NVIDIA GPU is needed"
    what = {
        ENGINE: f"TensorRT-LLM {release.tensorrt_llm} compiles it for sm_{gpu.sm}",
        LLMAPI: f"the LLM API of TensorRT-LLM {release.tensorrt_llm} loads it as it is",
    }[flow]
    parts = [what]
    if flow == LLMAPI and target.flow == AUTO:
        parts.append(_against_engine(target, recipe, model))
    if verdict(gpu, recipe, flow) == UNVERIFIED:
        parts.append(f"nobody has confirmed {recipe.name} on sm_{gpu.sm} in this flow")
    return "; ".join(parts)


def _against_engine(target: Target, recipe: QuantRecipe, model: ModelSpec | None) -> str:
    if ENGINE not in _flows(target):
        return "the release has no engine flow"
    if verdict(target.gpu, recipe, ENGINE) != YES:
        return f"{recipe.name} is not known to run on sm_{target.gpu.sm} as an engine"
    return f"an engine {_fault(model, recipe, ENGINE)}"


def _refusal(target: Target, recipe: QuantRecipe, model: ModelSpec | None, tried: list[str]) -> str:
    gpu, release = target.gpu, target.release
    if not tried:
        return _no_flow(target)
    for flow in tried:
        if model and verdict(gpu, recipe, flow) != NO:
            who = {ENGINE: "TensorRT-LLM's engine", LLMAPI: "TensorRT-LLM's LLM API", OPENVINO: "The CPU engine"}[flow]
            return f"{who} cannot serve this {model.architecture}: it {_fault(model, recipe, flow)}."
    if gpu.is_cpu:
        return f"{recipe.name} does not run on the CPU."
    known = sorted({sm for flow in tried for sm in recipe.sms_by_flow.get(flow, ()) if sm})
    where = f"in the {tried[0]} flow" if len(tried) == 1 else f"in any flow of release {release.name}"
    if not known:
        return f"{recipe.name} runs on no GPU {where}."
    if gpu.sm < known[0]:
        return f"{recipe.name} needs sm_{known[0]} or newer; {gpu.title} is sm_{gpu.sm}."
    listing = ", ".join(f"sm_{sm}" for sm in known)
    return f"{recipe.name} runs on {listing} {where}; {gpu.title} is sm_{gpu.sm}."


def _no_flow(target: Target) -> str:
    release, flow = target.release, target.flow
    if target.gpu.is_cpu or flow == OPENVINO:
        return f"--flow {flow} does not run on {target.gpu.title}."
    if ENGINE in release.flows and target.tool is None and flow in {AUTO, ENGINE}:
        return f"trtk does not know the flags of trtllm-build {release.tensorrt_llm}, which release {release.name} has."
    what = "engine or llmapi" if flow == AUTO else flow
    return f"Release {release.name} (TensorRT-LLM {release.tensorrt_llm}) has no {what} flow."


def _hint(target: Target, recipe: QuantRecipe, *, recipes: list[QuantRecipe], model: ModelSpec | None) -> str:
    """Name options that do give a plan: as little as possible is changed, and what is known to run comes first."""
    others = [other for other in recipes if other.name != recipe.name]
    others.sort(key=lambda other: (abs(other.weight_bits - recipe.weight_bits), other.weight_bits, other.name))
    for options, changed in _changes(target):
        for wanted in (YES, UNVERIFIED):
            if options and _runs(changed, recipe, wanted, model):
                return f"Try {options}."
            if running := [other.name for other in others if _runs(changed, other, wanted, model)]:
                quants = [" ".join(filter(None, (f"--quant {name}", options))) for name in running[:2]]
                return f"Try {' or '.join(quants)} on {changed.gpu.name}."
    return _hint_beyond(target, [recipe, *others], model)


def _changes(target: Target) -> Iterator[tuple[str, Target]]:
    """Yield what else could be asked for, the least change first."""
    yield "", target
    if target.flow != AUTO:
        yield "--flow auto", dataclasses.replace(target, flow=AUTO)
    if target.default_release and target.default_release != target.release:
        newest = dataclasses.replace(target, release=target.default_release, tool=_KNOWN_TOOL, api=_KNOWN_API)
        yield "--release auto", newest
        if target.flow != AUTO:
            yield "--flow auto --release auto", dataclasses.replace(newest, flow=AUTO)


def _hint_beyond(target: Target, recipes: list[QuantRecipe], model: ModelSpec | None) -> str:
    """Name the other kind of device, where nothing runs on this one."""
    if target.gpu.is_cpu:
        return "Name an NVIDIA GPU with --gpu; `trtk gpus` lists them."
    running = [each for each in recipes if verdict(CPU, each, OPENVINO) == YES and not _fault(model, each, OPENVINO)]
    if not running:
        return "`trtk quants` shows what runs where, and `trtk gpus` lists cards."
    quant = "" if running[0] is recipes[0] else f" --quant {running[0].name}"
    return f"Try --gpu cpu{'' if target.flow == AUTO else ' --flow auto'}{quant}, which needs no NVIDIA GPU."


def _runs(target: Target, recipe: QuantRecipe, wanted: str, model: ModelSpec | None) -> bool:
    return any(
        verdict(target.gpu, recipe, flow) == wanted and not _fault(model, recipe, flow)
        for flow in _flows(target)
        if target.flow in {AUTO, flow}
    )


#: Stand for the facts of the default release, which trtk always has.
_KNOWN_TOOL, _KNOWN_API = BuildTool(name="", flags={}, sources=()), LlmApi(name="", keys={})
CPU = GpuSpec(name="cpu", title="CPU", sm=CPU_SM)
