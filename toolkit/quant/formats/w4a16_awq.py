"""W4A16_AWQ: 4-bit integers, one float32 scale per row and group of columns, input factors per column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import int4
from toolkit.quant.format import WeightFormat
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch


def dequantize(linear: Linear) -> torch.Tensor:
    """Return integers times their groups' scales, float32 [N, K]."""
    assert linear.weight_scale is not None, "W4A16_AWQ has group scales"
    return int4.dequantized(linear.weight.float(), linear.weight_scale)


FORMAT = WeightFormat(algo="W4A16_AWQ", dequantize=dequantize, pack=int4.packed, unpack=int4.unpacked)
