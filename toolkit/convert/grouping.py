"""One group of linears through one recipe's algorithm."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from toolkit import quant
from toolkit.checkpoint.assignment import group_size_of
from toolkit.quant.algorithm import LinearGroup, Settings
from toolkit.specs import ConversionPlan, QuantRecipe, parts
from toolkit.weights import Layer, Linear

if TYPE_CHECKING:
    from toolkit.quant.statistics import InputStatistics


def quantized(
    plan: ConversionPlan, layer: Layer, group: str, *, recipe: QuantRecipe, statistics: InputStatistics | None
) -> dict[str, Linear]:
    """Return a group's linears by a recipe, without biases."""
    import torch

    members = parts.groups(plan.model, layer.index)[group]
    weights = {part: quant.as_float(layer.linears[part]).weight for part in members}
    asked = LinearGroup(layer=layer.index, name=group, weights=weights, statistics=statistics)
    settings = Settings(dtype=getattr(torch, plan.dtype), group_size=group_size_of(plan, recipe))
    return quant.algorithm(recipe).quantize(asked, settings)


def with_linears(layer: Layer, linears: dict[str, Linear]) -> Layer:
    """Return a layer in which some linears are others; biases stay."""
    changed = {part: dataclasses.replace(linear, bias=layer.linears[part].bias) for part, linear in linears.items()}
    return dataclasses.replace(layer, linears={**layer.linears, **changed})


def in_float(layer: Layer) -> Layer:
    """Return a layer whose quantized linears are float ones: what calibration measures is the model's own input."""
    return dataclasses.replace(layer, linears={part: quant.as_float(each) for part, each in layer.linears.items()})
