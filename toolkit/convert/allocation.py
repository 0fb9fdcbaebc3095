"""Which recipe each group gets: the bits go where they take away most of the error.

A multiple-choice knapsack. Of each group only the recipes on the lower convex hull of error over bits are of use;
taking the hulls' steps in the order of error saved per bit is optimal up to the last step (the greedy of the linear
relaxation, Sinha and Zoltners, The Multiple-Choice Knapsack Problem, doi:10.1287/opre.27.3.503).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolkit.specs import QuantRecipe

#: (layer, group of specs/parts.py)
Key = tuple[int, str]


@dataclass(frozen=True, kw_only=True)
class Option:
    """One recipe for one group: the bits of all its weights and what it is estimated to cost."""

    recipe: QuantRecipe
    bits: int
    kl: float


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """A recipe for every group, and what that comes to."""

    of: Mapping[Key, QuantRecipe]
    mean_bits: float  # per weight of these groups, scales not counted
    kl: float  # estimated, nats per token


@dataclass(frozen=True, kw_only=True)
class _Step:
    key: Key
    option: Option
    bits: int  # more than before
    saved: float


def options_of(recipes: Sequence[QuantRecipe], weights: int, scores: Mapping[str, float]) -> list[Option]:
    """Return a group's options; 16 bits cost nothing."""
    return [
        Option(recipe=recipe, bits=recipe.weight_bits * weights, kl=scores[recipe.name] if recipe.quant_algo else 0.0)
        for recipe in recipes
    ]


def allocate(
    groups: Mapping[Key, Sequence[Option]],
    *,
    weights: int,
    target_bits: float | None = None,
    max_kl: float | None = None,
) -> Allocation:
    """Return the least error within a mean of TARGET_BITS, or the fewest bits within MAX_KL; whichever is given."""
    chosen = {key: min(options, key=lambda option: (option.bits, option.kl)) for key, options in groups.items()}
    used, error = sum(option.bits for option in chosen.values()), sum(option.kl for option in chosen.values())
    steps = sorted((step for key, options in groups.items() for step in _hull(key, options)), key=_worth, reverse=True)
    closed: set[Key] = set()
    for step in steps:
        if max_kl is not None and error <= max_kl:
            break
        if target_bits is not None and used + step.bits > target_bits * weights:
            closed.add(step.key)  # a group's later steps stand on this one
        if step.key in closed:
            continue
        chosen[step.key] = step.option
        used, error = used + step.bits, error - step.saved
    return Allocation(
        of={key: option.recipe for key, option in chosen.items()},
        mean_bits=used / weights,
        kl=sum(option.kl for option in chosen.values()),
    )


def _worth(step: _Step) -> tuple[float, Key]:
    return (step.saved / step.bits, step.key)  # the key makes ties come out alike


def _hull(key: Key, options: Sequence[Option]) -> Iterator[_Step]:
    """Yield the steps of the lower convex hull, from the fewest bits on; each saves less per bit than the last."""
    left = sorted(options, key=lambda option: (option.bits, option.kl))
    now = left[0]
    while True:
        better = [option for option in left if option.bits > now.bits and option.kl < now.kl]
        if not better:
            return
        best = max(better, key=lambda option: ((now.kl - option.kl) / (option.bits - now.bits), option.bits))
        yield _Step(key=key, option=best, bits=best.bits - now.bits, saved=now.kl - best.kl)
        now = best
