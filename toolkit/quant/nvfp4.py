"""NVFP4: E2M1 in blocks of 16 columns, an E4M3 scale for each block, a float32 scale for all (arXiv:2509.25149)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import blocks, float4, float8

if TYPE_CHECKING:
    import torch

BLOCK = 16
#: The smallest E4M3 number; a block scale of 0 would lose the block.
SMALLEST = 2.0**-9


def global_scale(amax: torch.Tensor) -> torch.Tensor:
    """Return amax/(6 * 448), float32 []; 1 where amax is 0."""
    return blocks.scale_of(amax, float4.MAX * float8.MAX)


def block_scales(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the float8_e4m3fn scales [..., K/16] that map each block's amax to 6 under a global scale."""
    amax = values.unflatten(-1, (-1, BLOCK)).abs().amax(-1)
    wanted = amax.float() / (float4.MAX * scale)
    return stored_scales(wanted.masked_fill_(wanted == 0, 1.0))


def stored_scales(wanted: torch.Tensor) -> torch.Tensor:
    """Return float32 block scales as float8_e4m3fn, in place of none that would lose its block."""
    import torch

    return wanted.clamp_(SMALLEST, float8.MAX).to(torch.float8_e4m3fn)


def rounded(values: torch.Tensor, scales: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return float32 [..., K] of E2M1 numbers, not yet multiplied by their scales again."""
    blocks = values.unflatten(-1, (-1, BLOCK))
    return float4.nearest_(blocks / (scales.float() * scale).unsqueeze(-1)).flatten(-2)


def dequantized(numbers: torch.Tensor, scales: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return E2M1 numbers times both their scales, float32 [..., K]."""
    return (numbers.unflatten(-1, (-1, BLOCK)) * (scales.float() * scale).unsqueeze(-1)).flatten(-2)


def rounded_inputs(inputs: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return what inputs [..., K] become when each block of a token takes its own E4M3 scale under a static one."""
    scales = block_scales(inputs, scale)
    return dequantized(rounded(inputs, scales, scale), scales, scale)
