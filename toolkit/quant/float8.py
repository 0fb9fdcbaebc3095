"""The arithmetic of E4M3: 1 sign, 4 exponent and 3 mantissa bits, largest 448 (arXiv:2209.05433)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import blocks
from toolkit.quant.blocks import row_blocks

if TYPE_CHECKING:
    import torch

#: The largest finite E4M3 number.
MAX = 448.0


def stored(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return values / scale as float8_e4m3fn, rounded to nearest even and saturated."""
    import torch

    return (values.float() / scale).clamp_(-MAX, MAX).to(torch.float8_e4m3fn)


def stored_weight(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return a weight [N, K] as float8_e4m3fn under one scale [] or one for each row [N]."""
    import torch

    found = torch.empty(weight.shape, dtype=torch.float8_e4m3fn, device=weight.device)
    for rows in row_blocks(weight):
        own = scale if scale.dim() == 0 else scale[rows].unsqueeze(1)
        found[rows] = (weight[rows].float() / own).clamp_(-MAX, MAX)
    return found


def rounded(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return what values become when they pass through E4M3 under a scale, as float32."""
    return stored(values, scale).float() * scale


def scale_of(amax: torch.Tensor) -> torch.Tensor:
    """Return amax/448, float32; 1 where amax is 0."""
    return blocks.scale_of(amax, MAX)


def token_scales(inputs: torch.Tensor) -> torch.Tensor:
    """Return one scale per token, [..., 1]."""
    return scale_of(inputs.abs().amax(-1, keepdim=True))
