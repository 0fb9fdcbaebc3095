"""W4A16 in AWQ's format by plain rounding: no calibration, prequant factors of 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import int4
from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.specs import QuantRecipe

if TYPE_CHECKING:
    import torch


def quantize(group: LinearGroup, settings: Settings) -> dict[str, torch.Tensor]:
    """Return packed integers rounded to nearest under amax/7 per group."""
    import torch

    assert settings.group_size, "plan.conversion chose no group size"
    tensors = {}
    for module, weight in group.weights.items():
        scales = int4.group_scales(weight, settings.group_size)
        ones = torch.ones(weight.shape[1], dtype=settings.dtype)
        tensors.update(int4.tensors_of(module, int4.rounded(weight, scales), scales, prequant=ones))
    return tensors


ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="int4_rtn",
        title="4-bit weights by plain rounding, 16-bit activations",
        aliases=("rtn",),
        quant_algo="W4A16_AWQ",
        weight_bits=4,
        activation_bits=16,
        default_group_size=128,
        notes="AWQ's format with prequant factors of 1: fast, and worse than int4",
    ),
    quantize=quantize,
)
