"""The arithmetic of symmetric 8-bit integers: float32 scales of amax/127, one for each row of a weight or an input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import blocks
from toolkit.quant.blocks import row_blocks

if TYPE_CHECKING:
    import torch

QMIN, QMAX = -128, 127


def scale_of(amax: torch.Tensor) -> torch.Tensor:
    """Return amax/127, float32; 1 where amax is 0."""
    return blocks.scale_of(amax, QMAX)


def row_scales(weight: torch.Tensor) -> torch.Tensor:
    """Return amax/127 of each row, float32 [N]."""
    return scale_of(weight.abs().amax(1))


def stored_weight(weight: torch.Tensor, factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return int8 [N, K] and float32 row scales [N] of a weight whose columns are divided by FACTORS [K].

    ModelOpt's rule: clamp(round(w/s), -128, 127).
    """
    import torch

    found = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = torch.empty(weight.shape[0], device=weight.device)
    for rows in row_blocks(weight):
        scaled = weight[rows].float() / factors
        scales[rows] = row_scales(scaled)
        found[rows] = scaled.div_(scales[rows].unsqueeze(1)).round_().clamp_(QMIN, QMAX)
    return found, scales


def rounded(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return what values become when they pass through 8-bit integers under a scale, as float32."""
    return (values / scale).round_().clamp_(QMIN, QMAX).mul_(scale)
