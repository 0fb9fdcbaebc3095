"""No quantization: weights in float16, bfloat16 or float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant.format import WeightFormat
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch


def dequantize(linear: Linear) -> torch.Tensor:
    """Return the weight as float32."""
    return linear.weight.float()


FORMAT = WeightFormat(algo=None, dequantize=dequantize)
