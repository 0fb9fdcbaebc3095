"""Quantizations: recipes (pure) and, inside functions, the arithmetic."""

from __future__ import annotations

import dataclasses
import functools

from toolkit.quant import matrix
from toolkit.quant.algorithm import Algorithm
from toolkit.quant.format import WeightFormat
from toolkit.registry import by_name, entries_in, pick
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear

__all__ = ["algorithm", "as_float", "catalogue", "format_of", "get"]


@functools.cache
def _algorithms() -> tuple[Algorithm, ...]:
    return tuple(entries_in("toolkit.quant.algorithms", "ALGORITHM", Algorithm))


@functools.cache
def catalogue() -> tuple[QuantRecipe, ...]:
    """Return every recipe, with the SMs and flows of the support matrix filled in."""
    return tuple(_placed(entry.recipe) for entry in _algorithms())


def get(name: str) -> QuantRecipe:
    """Return a recipe by name or alias; raises UnknownName with the nearest."""
    table = by_name(catalogue(), lambda recipe: (recipe.name, *recipe.aliases))
    return pick(table, name.lower().replace("-", "_"), kind="quantization", command="trtk quants")


def algorithm(recipe: QuantRecipe) -> Algorithm:
    """Return the algorithm of a recipe."""
    return next(entry for entry in _algorithms() if entry.recipe.name == recipe.name)


@functools.cache
def _formats() -> dict[str | None, WeightFormat]:
    return {entry.algo: entry for entry in entries_in("toolkit.quant.formats", "FORMAT", WeightFormat)}


def format_of(quant_algo: str | None) -> WeightFormat:
    """Return the storage format of TensorRT-LLM's quant_algo; raises UnknownName for one that trtk does not store."""
    named = {algo: entry for algo, entry in _formats().items() if algo}
    return pick(named, quant_algo, kind="quantization algorithm") if quant_algo else _formats()[None]


def as_float(linear: Linear) -> Linear:
    """Return a linear as a float one: float32 weights that make of the unscaled input what its format makes of it."""
    if linear.algo is None:
        return linear
    weight = format_of(linear.algo).dequantize(linear)
    return Linear(weight=weight if linear.prequant is None else weight * linear.prequant.float(), bias=linear.bias)


def _placed(recipe: QuantRecipe) -> QuantRecipe:
    return dataclasses.replace(
        recipe,
        sms_by_flow={flow: matrix.supported_sms(recipe.quant_algo, flow) for flow in matrix.flows()},
        unverified_sms_by_flow={flow: matrix.unverified_sms(recipe.quant_algo, flow) for flow in matrix.flows()},
    )
