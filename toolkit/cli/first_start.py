"""What a bundle's first start compiles with, on each kind of GPU that it may find."""

from __future__ import annotations

from toolkit import releases
from toolkit.engine import bundle
from toolkit.engine.toolchains import trtllm
from toolkit.plan import build_flags
from toolkit.quant import matrix
from toolkit.specs import BuildPlan


def commands_by_sm(plan: BuildPlan) -> dict[int, list[str]]:
    """Return the command for each SM that can run the plan; an empty one where nothing is compiled.

    The flags are the plan's on all of them, but for those that hang on how cards are linked: what depends on the SM,
    8-bit attention for one, is the same wherever the recipe runs.
    """
    sms = sms_of(plan)
    if plan.toolchain != "trtllm":
        return {sm: [] for sm in sms}

    def command(sm: int) -> list[str]:
        return trtllm.command(
            plan,
            checkpoint=bundle.CHECKPOINT_PLACE,
            output=bundle.OUTPUT_PLACE,
            timing_cache=bundle.TIMING_CACHE_PLACE,
            sm=sm,
        )

    return {sm: command(sm) for sm in sms}


def sms_of(plan: BuildPlan) -> list[int]:
    """Return the SMs that run the plan's recipe, KV cache and flags; the plan's own is always one."""
    runs = set(plan.conversion.recipe.sms_by_flow.get(plan.flow, ()))
    if plan.conversion.kv_cache:
        runs &= set(matrix.supported_kv_cache_sms(plan.conversion.kv_cache.upper(), plan.flow))
    tool = releases.build_tool_of(plan.release)
    for flag in plan.build_flags:
        known = tool.flags.get(flag.name) if tool else None
        if known and flag.value != build_flags.OFF:
            runs -= set(known.refused_sms)
    return sorted(runs | {plan.gpu.sm})
