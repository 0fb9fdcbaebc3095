"""What a model that does not fit would fit with: fewer bits, or more cards."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from toolkit.errors import PlanInfeasible
from toolkit.plan import groups, limits, shards, support
from toolkit.plan.limits import Asked
from toolkit.plan.support import Target
from toolkit.specs import ConversionPlan, QuantRecipe, Sharding

RANKS = (2, 4, 8, 16, 32)


def hint(converted: ConversionPlan, target: Target, asked: Asked, recipes: Iterable[QuantRecipe]) -> str | None:
    """Return options that each make room, None where none of them does."""
    ways = [_fewer_bits(converted, target, asked, recipes), _more_cards(converted, target, asked)]
    found = [way for way in ways if way]
    return f"Try {' or '.join(found)}." if found else None


def _fewer_bits(converted: ConversionPlan, target: Target, asked: Asked, recipes: Iterable[QuantRecipe]) -> str | None:
    own = converted.recipe
    smaller = [
        each
        for each in recipes
        if each.weight_bits < own.weight_bits
        and support.verdict(target.gpu, each, target.flow) == support.YES
        and converted.layout in each.layouts
    ]
    smaller.sort(key=lambda each: (-each.weight_bits, each.name))
    for recipe in smaller:
        changed = dataclasses.replace(converted, recipe=recipe)
        if _fits(changed, target, asked):
            return f"--quant {recipe.name}"
    return None


def _more_cards(converted: ConversionPlan, target: Target, asked: Asked) -> str | None:
    for ranks in RANKS:
        sharding = dataclasses.replace(asked.sharding, tp=ranks)
        if ranks > asked.sharding.tp and _fits(converted, target, dataclasses.replace(asked, sharding=sharding)):
            return f"--tp {ranks}"
    return None


def _fits(converted: ConversionPlan, target: Target, asked: Asked) -> bool:
    """Return whether a rank's weights, and one request, fit into its GPU."""
    model, recipe, sharding = converted.model, converted.recipe, asked.sharding
    try:
        if sharding != Sharding():
            shards.check(model, sharding)
        size, _ = groups.choose(model, recipe, None, sharding=sharding)
        grouped = dataclasses.replace(converted, group_size=size)
        limits.choose(limits.loaded_on(target.gpu, grouped, target.flow, sharding), asked)
    except PlanInfeasible:
        return False
    return True
