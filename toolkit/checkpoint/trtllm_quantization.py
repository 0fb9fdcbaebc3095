"""How TensorRT-LLM is told what is quantized: config.json's `quantization`, and quant_cfg.json for mixed precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.checkpoint import sharding
from toolkit.checkpoint.assignment import Assignment, group_size_of
from toolkit.checkpoint.module_reader import ROUNDED_BY_BUILDER
from toolkit.errors import PlanInfeasible
from toolkit.models import parts
from toolkit.specs import MIXED_PRECISION, STAYS_16_BIT, ConversionPlan, ModelSpec, QuantRecipe

#: Groups of integers that come with factors for the input.
AWQ = {"W4A16_AWQ", "W4A8_AWQ"}


def quantization(plan: ConversionPlan, assignment: Assignment) -> dict[str, Any]:
    """Return only keys of QuantConfig: an unknown one is a TypeError in trtllm-build."""
    kv_cache = {"kv_cache_quant_algo": plan.kv_cache.upper() if plan.kv_cache else None}
    if assignment.is_mixed:
        return {"quant_algo": MIXED_PRECISION, **kv_cache}
    used = next((recipe for recipe in assignment.of.values() if recipe and recipe.quant_algo), None)
    if used is None:
        return {"quant_algo": None, **kv_cache}
    found = {**entry(plan, used), **kv_cache}
    excluded = _excluded(plan, assignment, used)
    return found | ({"exclude_modules": excluded} if excluded else {})


def mixed(plan: ConversionPlan, assignment: Assignment) -> dict[str, Any]:
    """Return quant_cfg.json: the format of every module that is quantized."""
    recipes = _by_module(plan, assignment)
    return {
        "quant_algo": MIXED_PRECISION,
        "kv_cache_quant_algo": plan.kv_cache.upper() if plan.kv_cache else None,
        "quantized_layers": {
            name: entry(plan, recipe) for name, recipe in recipes.items() if recipe and recipe.quant_algo
        },
    }


def entry(plan: ConversionPlan, recipe: QuantRecipe) -> dict[str, Any]:
    """Return the fields that describe one recipe, in config.json and for one module alike."""
    found: dict[str, Any] = {"quant_algo": recipe.quant_algo}
    size = group_size_of(plan, recipe)
    if size:
        found["group_size"] = size
    if recipe.quant_algo in AWQ:
        found |= {"has_zero_point": False, "pre_quant_scale": True}
    return found


def _excluded(plan: ConversionPlan, assignment: Assignment, recipe: QuantRecipe) -> list[str]:
    """Return the patterns of what stays in 16 bits; a list in the file replaces TensorRT-LLM's own whole."""
    modules = _by_module(plan, assignment)
    kept = [name for name, used in modules.items() if used is None or used.quant_algo is None]
    if not kept:
        return list(recipe.exclude_modules)
    if recipe.quant_algo in ROUNDED_BY_BUILDER:  # exclusions are matched against tensors then, not modules
        kept = [*(f"{name}.weight" for name in kept), *kept, "*shared_expert_gate.weight"]
    return [*STAYS_16_BIT, *kept]


def _by_module(plan: ConversionPlan, assignment: Assignment) -> dict[str, QuantRecipe | None]:
    """Return the recipe of each module, by its name on its rank: stages count their layers from 0."""
    found: dict[str, QuantRecipe | None] = {}
    for (layer, group), recipe in assignment.of.items():
        _, local = sharding.stage_of(plan.sharding, plan.model.num_layers, layer)
        for module in modules_of(plan.model, layer, group):
            name = f"transformer.layers.{local}.{module}"
            if name in found and _algo(found[name]) != _algo(recipe):
                raise PlanInfeasible(
                    f"With --pp {plan.sharding.pp}, {name} is {_algo(found[name]) or '16 bits'} on one stage and "
                    f"{_algo(recipe) or '16 bits'} on another; a checkpoint has one entry for both.",
                    hint="Leave --pp out, or treat all layers alike.",
                )
            found[name] = recipe
    return found


def modules_of(model: ModelSpec, layer: int, group: str) -> Iterator[str]:
    """Yield TensorRT-LLM's modules that a group of linears is in; a mixture is one module, and its two products."""
    members = set(parts.groups(model, layer)[group])
    names: dict[str, None] = {}
    for module, held in parts.modules(model, layer).items():
        if members & set(held):
            is_expert = module.startswith("mlp.experts.")
            names[f"mlp.{module.rpartition('.')[2]}" if is_expert else module] = None
            if is_expert:
                names["mlp"] = None
    yield from names


def _algo(recipe: QuantRecipe | None) -> str | None:
    return recipe.quant_algo if recipe else None
