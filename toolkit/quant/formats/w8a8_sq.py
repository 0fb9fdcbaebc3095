"""W8A8_SQ_PER_CHANNEL: 8-bit integers, a float32 scale per row, input factors per column and one static input scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import int8
from toolkit.quant.format import WeightFormat
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch


def dequantize(linear: Linear) -> torch.Tensor:
    """Return each row of integers times its scale, float32 [N, K]."""
    assert linear.weight_scale is not None, "W8A8_SQ_PER_CHANNEL has row scales"
    return linear.weight.float() * linear.weight_scale.unsqueeze(1)


def quantize_input(inputs: torch.Tensor, linear: Linear) -> torch.Tensor:
    """Round smoothed inputs to 8-bit integers under the static scale."""
    assert linear.activation_scale is not None, "W8A8_SQ_PER_CHANNEL has a static input scale"
    return int8.rounded(inputs, linear.activation_scale)


FORMAT = WeightFormat(algo="W8A8_SQ_PER_CHANNEL", dequantize=dequantize, quantize_input=quantize_input)
