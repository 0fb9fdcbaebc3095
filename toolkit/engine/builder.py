"""What runs `trtllm-build`: in a container, on this machine, or later on the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import MissingError
from toolkit.registry import by_name, entries_in, pick
from toolkit.specs import BuildPlan, Choice, Progress
from toolkit.specs.machine import BuildHost, LocalGpu, gpus_for

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class BuildJob:
    """One engine to compile: FOLDER/checkpoint becomes FOLDER/engine/KEY."""

    folder: Path
    host: BuildHost
    timing_caches: Path  # one below it for each GPU and release
    image: str = ""  # instead of the release's
    memory_bytes: int = 0  # that the compiler may use; 0: most of the machine's


@dataclass(frozen=True, kw_only=True)
class Builder:
    """One module of engine/builders."""

    name: str
    rank: int  # `auto` takes the first that can
    reason: str  # why `auto` takes it
    is_deferred: bool  # True: it compiles nothing here
    why_not: Callable[[BuildPlan, BuildHost], str | None]
    build: Callable[[BuildPlan, BuildJob, Progress], Mapping[str, str]]  # returns the versions of what compiled


def builders() -> list[Builder]:
    """Return every builder, in the order in which `auto` asks them."""
    return sorted(entries_in("toolkit.engine.builders", "BUILDER", Builder), key=lambda builder: builder.rank)


def builder(name: str) -> Builder:
    """Return a builder by name."""
    return pick(by_name(builders(), lambda entry: (entry.name,)), name, kind="builder")


def choose(plan: BuildPlan, host: BuildHost, *, asked: str) -> Choice:
    """Return the builder of a plan with the reason; raises MissingError where the one that was asked for cannot."""
    if asked != AUTO:
        if fault := builder(asked).why_not(plan, host):
            raise MissingError(
                f"--builder {asked} cannot compile for {plan.gpu.title} here: {fault}.",
                hint="--builder defer leaves a bundle that compiles its engine on the target, at first start.",
            )
        return Choice(name="builder", value=asked, reason="as asked")
    faults: list[str] = []
    for entry in builders():
        fault = entry.why_not(plan, host)
        if fault is None:
            return Choice(name="builder", value=entry.name, reason="; ".join([*faults, entry.reason]))
        faults.append(f"not {entry.name}: {fault}")
    raise AssertionError("one builder can always do its part")


def ranks(plan: BuildPlan) -> int:
    """Return how many engines the plan has: one for each rank."""
    return plan.limits.tp * plan.limits.pp


def gpus_of(plan: BuildPlan, host: BuildHost) -> tuple[LocalGpu, ...]:
    """Return this machine's GPUs that the plan's engines are compiled on."""
    return gpus_for(host, name=plan.gpu.name, sm=plan.gpu.sm, count=ranks(plan))


def why_no_gpu(plan: BuildPlan, host: BuildHost) -> str | None:
    """Return why no GPU of this machine can compile for the plan's; TensorRT times kernels on the card itself."""
    if gpus_of(plan, host):
        return None
    if not host.gpus:
        return host.gpu_fault or "this machine has no NVIDIA GPU"
    found = ", ".join(f"{gpu.title} (sm_{gpu.sm})" for gpu in host.gpus)
    return f"an engine for sm_{plan.gpu.sm} is compiled on such a card, and this machine has {found}"
