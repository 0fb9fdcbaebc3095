"""The arithmetic of 4-bit groups: symmetric integers -8..7 with one float scale per row and group of columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import blocks
from toolkit.quant.blocks import row_blocks
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch

QMIN, QMAX = -8, 7


def scale_of(amax: torch.Tensor) -> torch.Tensor:
    """Return amax/7, float32; 1 where amax is 0 (ModelOpt's rule)."""
    return blocks.scale_of(amax, QMAX)


def group_scales(weight: torch.Tensor, group_size: int) -> torch.Tensor:
    """Return the scale of each group, float32 [N, K/g]."""
    return scale_of(weight.reshape(weight.shape[0], -1, group_size).abs().amax(-1))


def nearest_(values: torch.Tensor) -> torch.Tensor:
    """Replace float32 values by the nearest integers of -8..7."""
    return values.round_().clamp_(QMIN, QMAX)


def rounded(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return integers as float32 [N, K]: clamp(round(w/s), -8, 7)."""
    grouped = weight.reshape(*scales.shape, -1)
    return nearest_(grouped / scales.unsqueeze(-1)).reshape(weight.shape)


def rounded_to_nearest(weight: torch.Tensor, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return int8 [N, K] integers and float32 [N, K/g] scales of amax/7."""
    import torch

    integers = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = torch.empty(weight.shape[0], weight.shape[1] // group_size, device=weight.device)
    for rows in row_blocks(weight):
        scales[rows] = group_scales(block := weight[rows].float(), group_size)
        integers[rows] = rounded(block, scales[rows])
    return integers, scales


def dequantized_amax(linear: Linear) -> torch.Tensor:
    """Return the largest magnitude of a linear's integers times their scales, float32 []."""
    import torch

    assert linear.weight_scale is not None, "4-bit integers have group scales"
    per_group = linear.weight.reshape(*linear.weight_scale.shape, -1)
    most = torch.maximum(per_group.amax(-1), -per_group.amin(-1))  # -(-8) fits: int8
    return (most * linear.weight_scale).amax()


def dequantized(integers: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return integers times scales, float32 [N, K]."""
    return (integers.reshape(*scales.shape, -1) * scales.unsqueeze(-1)).reshape(integers.shape)


def packed(integers: torch.Tensor) -> torch.Tensor:
    """Return int8 [N/2, K]: row 2i in the low nibble, row 2i+1 in the high one, two's complement."""
    import torch

    assert integers.shape[0] % 2 == 0, f"two rows share a byte, and there are {integers.shape[0]}"
    low, high = integers.view(torch.uint8)[0::2], integers.view(torch.uint8)[1::2]
    found = torch.empty(low.shape, dtype=torch.uint8, device=low.device)
    for rows in row_blocks(found):
        torch.bitwise_left_shift(high[rows], 4, out=found[rows]).bitwise_or_(low[rows] & 0x0F)
    return found.view(torch.int8)


def unpacked(weight: torch.Tensor) -> torch.Tensor:
    """Return int8 [N, K] integers of a packed int8 or uint8 [N/2, K]; the inverse of `packed`."""
    import torch

    plain = weight.view(torch.uint8)
    pairs = torch.stack((plain & 0x0F, plain >> 4), dim=1).reshape(-1, weight.shape[1])
    return (pairs ^ 8).to(torch.int8) - 8
