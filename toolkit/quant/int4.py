"""The arithmetic of 4-bit groups: symmetric integers -8..7 with one float scale per row and group of columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

QMIN, QMAX = -8, 7


def group_scales(weight: torch.Tensor, group_size: int) -> torch.Tensor:
    """Return amax/7 of each group, float32 [N, K/g]; 1 where a group is all zero (ModelOpt's rule)."""
    grouped = weight.reshape(weight.shape[0], -1, group_size)
    scales = grouped.abs().amax(-1) / QMAX
    return scales.masked_fill(scales == 0, 1.0)


def rounded(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return integers as float32 [N, K]: clamp(round(w/s), -8, 7)."""
    grouped = weight.reshape(*scales.shape, -1)
    return (grouped / scales.unsqueeze(-1)).round_().clamp_(QMIN, QMAX).reshape(weight.shape)


def dequantized(integers: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return integers times scales, float32 [N, K]."""
    return (integers.reshape(*scales.shape, -1) * scales.unsqueeze(-1)).reshape(integers.shape)


def packed(integers: torch.Tensor) -> torch.Tensor:
    """Return int8 [N/2, K]: row 2i in the low nibble, row 2i+1 in the high one, two's complement."""
    import torch

    nibbles = integers.to(torch.int8).view(torch.uint8) & 0x0F
    return (nibbles[0::2] | (nibbles[1::2] << 4)).view(torch.int8)


def unpacked(weight: torch.Tensor) -> torch.Tensor:
    """Return int8 [N, K] integers of a packed int8 or uint8 [N/2, K]; the inverse of `packed`."""
    import torch

    plain = weight.view(torch.uint8)
    pairs = torch.stack((plain & 0x0F, plain >> 4), dim=1).reshape(-1, weight.shape[1])
    return (pairs ^ 8).to(torch.int8) - 8
