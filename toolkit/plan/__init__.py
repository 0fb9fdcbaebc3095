"""Specs → ConversionPlan and BuildPlan, or a refusal with reasons. Pure: no disk, no clock, no environment."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable

from toolkit.errors import PlanInfeasible
from toolkit.plan import build_flags, groups, limits, llm_api, memory, mixed, room, shards, storage, support, tensors
from toolkit.plan.engine_options import SPECULATIVE, AskedEngine
from toolkit.plan.limits import Asked
from toolkit.plan.storage import AskedCheckpoint
from toolkit.plan.support import Target, resolve
from toolkit.specs import (
    AutoSpec,
    BuildPlan,
    CalibrationSpec,
    Choice,
    ConversionPlan,
    GpuSpec,
    ModelSpec,
    QuantRecipe,
    Sharding,
    to_json,
)
from toolkit.specs.planning import Sizing

__all__ = [
    "SPECULATIVE",
    "Asked",
    "AskedCheckpoint",
    "AskedEngine",
    "Target",
    "conversion",
    "layout_of",
    "make",
    "memory",
    "mixed",
    "resolve",
    "tensors",
    "with_builder",
]


def conversion(
    model: ModelSpec,
    recipe: QuantRecipe,
    *,
    asked: AskedCheckpoint | None = None,
    calibration: CalibrationSpec | None = None,
    auto: AutoSpec | None = None,
) -> ConversionPlan:
    """Return what a checkpoint's bytes depend on; calibration is kept only where it is read.

    With AUTO, the recipe is what stands for the mix: `mixed.recipe_of`.
    """
    asked = asked or AskedCheckpoint()
    if auto:
        mixed.check(model, auto, asked)
    stored = storage.check(model, recipe, asked)
    size, choices = groups.choose(model, recipe, asked.group_size, sharding=asked.sharding)
    kv_cache, kv_choice = storage.kv_cache(recipe, asked.kv_cache, layout=asked.layout)
    is_calibrated = storage.needs_calibration(recipe, kv_cache)
    if is_calibrated and calibration is None:
        who = recipe.name if recipe.needs_calibration else f"--kv-cache {kv_cache}"
        raise PlanInfeasible(f"{who} needs calibration text.", hint="--calib self lets the model write it.")
    return ConversionPlan(
        model=model,
        recipe=recipe,
        group_size=size,
        dtype=storage.dtype(recipe, asked.dtype),
        calibration=calibration if is_calibrated else None,
        device=asked.device,
        layout=asked.layout,
        sharding=asked.sharding,
        kv_cache=kv_cache,
        exclude=asked.exclude,
        auto=auto,
        choices=(*choices, *stored, kv_choice),
    )


def layout_of(flow: str) -> str:
    """Return the layout of the checkpoint that a flow reads."""
    return storage.HF if flow == support.LLMAPI else storage.TRTLLM


def make(converted: ConversionPlan, target: Target, asked: Asked, *, recipes: Iterable[QuantRecipe] = ()) -> BuildPlan:
    """Return the plan of a build; raises PlanInfeasible with the reason and a way out.

    RECIPES are those that a refusal may recommend.
    """
    model, recipe, gpu = converted.model, converted.recipe, target.gpu
    target = resolve(target, recipe, recipes=recipes, model=model)
    flow = target.flow
    assert converted.layout == layout_of(flow), "the checkpoint is converted for another flow"
    _check_ranks(converted, asked.sharding, gpu)
    assert flow == support.LLMAPI or converted.sharding == asked.sharding, "the checkpoint has other ranks"
    sharding = asked.sharding
    loaded = limits.loaded_on(gpu, converted, flow, sharding)
    try:
        sizing = limits.choose(loaded, asked)
    except limits.NoRoom as refusal:
        raise PlanInfeasible(str(refusal), hint=room.hint(converted, target, asked, recipes) or refusal.hint) from None
    assert target.flow_choice, "resolve set it"
    plan = BuildPlan(
        plan_id="",
        gpu=gpu,
        conversion=converted,
        release=target.release,
        flow=flow,
        toolchain=support.TOOLCHAINS[flow],
        builder="defer" if flow == support.ENGINE else "local",
        limits=sizing.limits,
        weights_bytes=loaded.weights_bytes,
        kv_bytes_per_token=sizing.kv.bytes_per_token,
        kv_bytes=sizing.memory.kv_cache,
        kv_fraction=sizing.kv_fraction,
        scheduler_policy=sizing.scheduler_policy,
        build_flags=_build_flags(converted, target, sizing, asked.engine),
        adapters=asked.engine.adapters,
        choices=(*converted.choices, target.flow_choice, *sizing.choices),
    )
    return dataclasses.replace(plan, plan_id=_digest(plan))


def with_builder(plan: BuildPlan, choice: Choice) -> BuildPlan:
    """Return the plan with its builder decided; what this machine has is a reason, and no part of the plan's id."""
    decided = dataclasses.replace(plan, builder=choice.value)
    return dataclasses.replace(decided, plan_id=_digest(decided), choices=(*plan.choices, choice))


def _build_flags(converted: ConversionPlan, target: Target, sizing: Sizing, asked: AskedEngine) -> tuple[Choice, ...]:
    if target.flow == support.ENGINE:
        assert target.tool, "resolve takes no engine flow without it"
        compiled = build_flags.Compiled(gpu=target.gpu, converted=converted, limits=sizing.limits, asked=asked)
        return build_flags.choose(compiled, target.tool)
    if target.flow == support.LLMAPI:
        assert target.api, "resolve takes no llmapi flow without it"
        return llm_api.choose(sizing, asked, target.api)
    if asked != AskedEngine():
        raise PlanInfeasible(
            "--speculative, --lora-dir, --gather-logits, --workers and --set-flag are of NVIDIA GPUs; the CPU engine "
            "has none of them.",
            hint="Leave them out, or name an NVIDIA GPU with --gpu.",
        )
    return ()


def _check_ranks(converted: ConversionPlan, sharding: Sharding, gpu: GpuSpec) -> None:
    """Raise PlanInfeasible when a model, or its groups, cannot be divided among the ranks."""
    if sharding == Sharding():
        return
    if gpu.is_cpu:
        raise PlanInfeasible(
            "--tp, --pp and --ep divide a model among NVIDIA GPUs; the CPU engine is one.", hint="Leave them out."
        )
    shards.check(converted.model, sharding)
    if converted.layout == storage.HF and converted.group_size:  # divided when it is loaded, so not checked until here
        groups.choose(converted.model, converted.recipe, converted.group_size, sharding=sharding)


def _digest(plan: BuildPlan) -> str:
    """Return 16 hex digits of everything in the plan that changes what is built; sources and notes do not."""
    document = to_json(plan)
    for noun in (document["gpu"], document["release"], document["conversion"]["recipe"], *document["adapters"]):
        for words in ("sources", "notes", "papers", "title", "aliases", "path"):
            noun.pop(words, None)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
