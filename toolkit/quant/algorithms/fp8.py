"""FP8: E4M3 weights and activations with one static scale each per linear."""

from __future__ import annotations

from toolkit.quant import float8
from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.quant.blocks import amax
from toolkit.quant.statistics import Wanted
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear


def quantize(group: LinearGroup, settings: Settings) -> dict[str, Linear]:  # noqa: ARG001 - one signature for all
    """Return E4M3 weights; parts of a module share both scales, so that the engine may fuse them."""
    import torch

    assert group.statistics, "fp8 needs calibration"
    linears = {}
    for module in group.modules:
        weight_scale = float8.scale_of(torch.stack([amax(weight) for weight in module.values()]).amax())
        activation_scale = float8.scale_of(torch.tensor(group.statistics.amax, device=weight_scale.device))
        for part, weight in module.items():
            linears[part] = Linear(
                algo="FP8",
                weight=float8.stored_weight(weight, weight_scale),
                weight_scale=weight_scale,
                activation_scale=activation_scale,
            )
    return linears


ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="fp8",
        title="8-bit float weights and activations (E4M3)",
        aliases=("fp8_e4m3",),
        quant_algo="FP8",
        weight_bits=8,
        activation_bits=8,
        needs_calibration=True,
        papers=("Micikevicius et al., FP8 Formats for Deep Learning, arXiv:2209.05433",),
    ),
    quantize=quantize,
    wanted=Wanted.AMAX,
)
