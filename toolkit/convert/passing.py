"""Linears of a quantized source as the target layout holds them, without quantizing them again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from toolkit.quant import float8
from toolkit.specs import ConversionPlan
from toolkit.specs.parts import by_module
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch

#: Formats of the engine flow whose linears share scales with those that read the same input.
SHARED_SCALES = {"FP8", "W4A8_AWQ", "NVFP4"}
TRTLLM = "trtllm"


def as_kept(linears: Mapping[str, Linear], plan: ConversionPlan, dtype: torch.dtype) -> dict[str, Linear]:
    """Return a group's linears as the target layout holds them: the same numbers, but for shared FP8 scales."""
    made = {part: _regrouped(linear, plan.group_size, dtype) for part, linear in linears.items()}
    if plan.layout != TRTLLM or next(iter(made.values())).algo not in SHARED_SCALES:
        return made
    return _with_shared_scales(made)


def _regrouped(linear: Linear, size: int | None, dtype: torch.dtype) -> Linear:
    """Return 4-bit groups with factors of 1 for the inputs, larger groups written as several with one scale."""
    import torch

    if linear.algo not in {"W4A16_AWQ", "W4A8_AWQ"} or linear.weight_scale is None:
        return linear
    repeats = linear.shape[1] // linear.weight_scale.shape[1] // (size or linear.shape[1])
    scale = linear.weight_scale.repeat_interleave(repeats, dim=1) if repeats > 1 else linear.weight_scale
    ones = torch.ones(linear.shape[1], dtype=dtype, device=linear.weight.device)
    prequant = ones if linear.prequant is None else linear.prequant.to(dtype)
    return dataclasses.replace(linear, weight_scale=scale, prequant=prequant)


def _with_shared_scales(linears: Mapping[str, Linear]) -> dict[str, Linear]:
    """Return linears that share the input scale, and within a module an FP8 weight's scale.

    The largest scale wins, so nothing saturates; FP8 weights under a smaller one are rounded once more, which is what
    TensorRT-LLM's own loader does when it fuses them.
    """
    import torch

    scales = [linear.activation_scale for linear in linears.values() if linear.activation_scale is not None]
    activation = torch.stack(scales).amax() if scales else None
    made = {}
    for module in by_module(linears):
        weight_scales = [linear.weight_scale for linear in module.values() if linear.weight_scale is not None]
        is_shared = next(iter(module.values())).algo == "FP8"
        shared = torch.stack(weight_scales).amax() if is_shared else None
        for part, linear in module.items():
            under = linear if shared is None else _under(shared, linear)
            made[part] = dataclasses.replace(under, activation_scale=activation)
    return made


def _under(scale: torch.Tensor, linear: Linear) -> Linear:
    """Return an FP8 linear under another scale."""
    import torch

    assert linear.weight_scale is not None, "FP8 has a weight scale"
    if torch.equal(scale, linear.weight_scale):
        return linear
    weight = float8.stored(linear.weight.float() * linear.weight_scale, scale)
    return dataclasses.replace(linear, weight=weight, weight_scale=scale)
