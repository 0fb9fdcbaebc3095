"""W4A16 in AWQ's format by plain rounding: no calibration, prequant factors of 1."""

from __future__ import annotations

from toolkit.quant import int4
from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear


def quantize(group: LinearGroup, settings: Settings) -> dict[str, Linear]:
    """Return packed integers rounded to nearest under amax/7 per group."""
    import torch

    assert settings.group_size, "plan.conversion chose no group size"
    linears = {}
    for part, weight in group.weights.items():
        integers, scales = int4.rounded_to_nearest(weight, settings.group_size)
        linears[part] = Linear(
            algo="W4A16_AWQ",
            weight=integers,
            weight_scale=scales,
            prequant=torch.ones(weight.shape[1], dtype=settings.dtype, device=weight.device),
        )
    return linears


ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="int4_rtn",
        title="4-bit weights by plain rounding, 16-bit activations",
        aliases=("rtn",),
        quant_algo="W4A16_AWQ",
        weight_bits=4,
        activation_bits=16,
        default_group_size=128,
        group_sizes=(128, 64, 32),
        notes="AWQ's format with prequant factors of 1: fast, and worse than int4",
    ),
    quantize=quantize,
)
