"""Specs → ConversionPlan and BuildPlan, or a refusal with reasons. Pure: no disk, no clock, no environment."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from toolkit.errors import PlanInfeasible
from toolkit.plan import build_flags, groups, limits, memory, mixed, storage, support
from toolkit.plan.limits import Asked
from toolkit.plan.storage import AskedCheckpoint
from toolkit.specs import (
    AutoSpec,
    BuildPlan,
    CalibrationSpec,
    ConversionPlan,
    GpuSpec,
    ModelSpec,
    QuantRecipe,
    Release,
    to_json,
)

__all__ = ["Asked", "AskedCheckpoint", "Target", "check_target", "conversion", "make", "memory", "mixed"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where and how an engine is to run."""

    gpu: GpuSpec
    release: Release
    flow: str = "auto"


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


def check_target(target: Target, recipe: QuantRecipe, *, recipes: Iterable[QuantRecipe]) -> None:
    """Raise PlanInfeasible when no model at all could run so; needs no model."""
    support.choose_flow(target.gpu, recipe, target.release, asked=target.flow, recipes=recipes)


def make(converted: ConversionPlan, target: Target, asked: Asked, *, recipes: Iterable[QuantRecipe] = ()) -> BuildPlan:
    """Return the plan of a build; raises PlanInfeasible with the reason and a way out.

    RECIPES are those that a refusal may recommend.
    """
    model, recipe, gpu = converted.model, converted.recipe, target.gpu
    flow, flow_choices = support.choose_flow(gpu, recipe, target.release, asked=target.flow, recipes=recipes)
    support.need_computable(model, flow)
    weights = memory.weights_bytes(model, recipe, converted.group_size)
    per_token = memory.kv_bytes_per_token(model, kv_bytes=1 if converted.kv_cache else memory.FLOAT_BYTES)
    bounds, kv_bytes, limit_choices = limits.choose(
        gpu, model, asked, weights_bytes=weights, kv_bytes_per_token=per_token
    )
    is_engine = flow == support.ENGINE
    plan = BuildPlan(
        plan_id="",
        gpu=gpu,
        conversion=converted,
        release=target.release,
        flow=flow,
        toolchain=support.TOOLCHAINS[flow],
        builder="defer" if is_engine else "local",
        limits=bounds,
        weights_bytes=weights,
        kv_bytes_per_token=per_token,
        kv_bytes=kv_bytes,
        build_flags=build_flags.choose(gpu, recipe, bounds, dtype=converted.dtype) if is_engine else (),
        choices=(*converted.choices, *flow_choices, *limit_choices),
    )
    return dataclasses.replace(plan, plan_id=_digest(plan))


def _digest(plan: BuildPlan) -> str:
    """Return 16 hex digits of everything in the plan that changes what is built; sources and notes do not."""
    document = to_json(plan)
    for noun in (document["gpu"], document["release"], document["conversion"]["recipe"]):
        for words in ("sources", "notes", "papers", "title", "aliases"):
            noun.pop(words, None)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
