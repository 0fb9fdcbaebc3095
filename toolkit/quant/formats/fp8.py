"""FP8: E4M3 weights and inputs, one static float32 scale each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import float8
from toolkit.quant.format import WeightFormat
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch


def dequantize(linear: Linear) -> torch.Tensor:
    """Return the weight times its scale, float32 [N, K]."""
    assert linear.weight_scale is not None, "FP8 has a weight scale"
    return linear.weight.float() * linear.weight_scale


def quantize_input(inputs: torch.Tensor, linear: Linear) -> torch.Tensor:
    """Round inputs to E4M3 under the static scale; without one the kernel takes each token's own."""
    scale = linear.activation_scale
    return float8.rounded(inputs, float8.token_scales(inputs) if scale is None else scale)


FORMAT = WeightFormat(algo="FP8", dequantize=dequantize, quantize_input=quantize_input)
