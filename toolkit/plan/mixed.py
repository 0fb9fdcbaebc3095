"""A mix of recipes in one checkpoint: which may be mixed, and what stands for them in the plan."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from toolkit.errors import PlanInfeasible
from toolkit.plan import groups, storage
from toolkit.plan.storage import AskedCheckpoint
from toolkit.specs import AutoSpec, ModelSpec, QuantRecipe

NAME = "auto"
#: Bits per weight that memory is planned for when only a bound on the divergence is known.
ASSUMED_BITS = 8


def recipe_of(auto: AutoSpec) -> QuantRecipe:
    """Return what stands for the mix where one recipe is asked about: the candidate of the fewest bits."""
    base = cheapest(auto.candidates)
    title = f"mixed: {', '.join(recipe.name for recipe in auto.candidates)}"
    bits = math.ceil(auto.target_bits) if auto.target_bits else ASSUMED_BITS
    return dataclasses.replace(base, name=NAME, title=title, aliases=(), weight_bits=bits, needs_calibration=True)


def cheapest(candidates: Sequence[QuantRecipe]) -> QuantRecipe:
    """Return the candidate of the fewest bits, the first of equals."""
    return min(candidates, key=lambda recipe: recipe.weight_bits)


def check(model: ModelSpec, auto: AutoSpec, asked: AskedCheckpoint) -> None:
    """Raise PlanInfeasible when a candidate cannot be stored as asked, or there is nothing to choose."""
    bits = sorted({recipe.weight_bits for recipe in auto.candidates})
    names = ", ".join(recipe.name for recipe in auto.candidates)
    if len(bits) < 2:
        raise PlanInfeasible(
            f"The candidates {names} all have {bits[0]} bits, so there is nothing to choose.",
            hint="Try --candidates int4,int8,fp16.",
        )
    if auto.target_bits is not None and auto.target_bits < bits[0]:
        raise PlanInfeasible(
            f"--target-bits {auto.target_bits:g} is below the {bits[0]} bits of {cheapest(auto.candidates).name}.",
            hint=f"Try --target-bits {bits[0] + 0.5}.",
        )
    if asked.sharding.pp > 1:
        raise PlanInfeasible(
            f"--quant auto gives each layer formats of its own, and with --pp {asked.sharding.pp} a checkpoint has one "
            "entry for the layers of all stages.",
            hint="Leave --pp out, or name one format with --quant.",
        )
    for recipe in auto.candidates:
        storage.check(model, recipe, asked)
        if recipe.default_group_size:
            size = asked.group_size if asked.group_size in recipe.group_sizes else None
            groups.choose(model, recipe, size, sharding=asked.sharding)
