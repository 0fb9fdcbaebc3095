"""One group of linears through one recipe's algorithm."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from toolkit import quant
from toolkit.checkpoint.assignment import group_size_of
from toolkit.quant.algorithm import LinearGroup, Settings
from toolkit.specs import ConversionPlan, QuantRecipe, parts
from toolkit.weights import Layer, Linear

if TYPE_CHECKING:
    from toolkit.quant.statistics import InputStatistics


#: Weights of a layer whose groups are quantized at the same time.
SMALL_LAYER_ELEMENTS = 1 << 24


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


def side_by_side(
    work: Callable[[str], dict[str, Linear]], groups: Sequence[str], layer: Layer
) -> list[dict[str, Linear]]:
    """Return what WORK makes of each group, in order; the groups of a small layer at the same time.

    The operations on a small layer's columns are too short for several threads, and leave all cores but one idle.
    A large layer's fill them, and its groups' temporaries would not fit beside one another.
    """
    import torch

    weights = [linear.weight for linear in layer.linears.values()]
    if any(weight.is_cuda for weight in weights) or sum(weight.numel() for weight in weights) > SMALL_LAYER_ELEMENTS:
        return [work(group) for group in groups]

    def alone(group: str) -> dict[str, Linear]:
        with torch.inference_mode():  # a mode of the thread
            return work(group)

    with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(alone, groups))
