"""FP8: E4M3 weights and activations with one static scale each per linear."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.specs import QuantRecipe

if TYPE_CHECKING:
    import torch

#: The largest finite E4M3 number.
FP8_MAX = 448.0


def quantize(group: LinearGroup, settings: Settings) -> dict[str, torch.Tensor]:  # noqa: ARG001 - one signature for all
    """Return E4M3 weights; linears that share an input share both scales, so that the engine may fuse them."""
    import torch

    assert group.statistics, "fp8 needs calibration"
    amax = max(float(weight.abs().max()) for weight in group.weights.values())
    weight_scale = torch.tensor([amax / FP8_MAX or 1.0])
    activation_scale = torch.tensor([group.statistics.amax / FP8_MAX or 1.0])
    tensors = {}
    for module, weight in group.weights.items():
        tensors[f"{module}.weight"] = (weight / weight_scale).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
        tensors[f"{module}.weights_scaling_factor"] = weight_scale.clone()
        tensors[f"{module}.activation_scaling_factor"] = activation_scale.clone()
    return tensors


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
)
