"""W4A8_AWQ: the integers of W4A16_AWQ, which pass through E4M3 under a second scale; inputs in E4M3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import float8, int4
from toolkit.quant.format import WeightFormat
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch


def dequantize(linear: Linear) -> torch.Tensor:
    """Return integers times their groups' scales, rounded to E4M3 under the second scale, float32 [N, K]."""
    assert linear.weight_scale is not None, "W4A8_AWQ has group scales"
    assert linear.weight_scale_2 is not None, "W4A8_AWQ has a second scale"
    return float8.rounded(int4.dequantized(linear.weight.float(), linear.weight_scale), linear.weight_scale_2)


def quantize_input(inputs: torch.Tensor, linear: Linear) -> torch.Tensor:
    """Round scaled inputs to E4M3 under the static scale."""
    assert linear.activation_scale is not None, "W4A8_AWQ has a static input scale"
    return float8.rounded(inputs, linear.activation_scale)


FORMAT = WeightFormat(
    algo="W4A8_AWQ",
    dequantize=dequantize,
    quantize_input=quantize_input,
    pack=int4.packed,
    unpack=int4.unpacked,
)
