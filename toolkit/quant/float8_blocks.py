"""E4M3 under one float32 scale for each square of weights and each run of inputs (DeepSeek-V3, arXiv:2412.19437)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import float8

if TYPE_CHECKING:
    import torch

SIDE = 128


def block_scales(weight: torch.Tensor) -> torch.Tensor:
    """Return amax/448 of each 128 x 128 square, float32 [ceil(N/128), ceil(K/128)]; those at the edges are smaller."""
    import torch

    bands = [weight[start : start + SIDE] for start in range(0, weight.shape[0], SIDE)]
    return torch.stack([float8.scale_of(_runs(band.abs().amax(0)).amax(-1)) for band in bands])


def stored(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return a weight [N, K] as float8_e4m3fn under its squares' scales."""
    import torch

    found = torch.empty(weight.shape, dtype=torch.float8_e4m3fn, device=weight.device)
    for i in range(scales.shape[0]):
        rows = slice(i * SIDE, (i + 1) * SIDE)
        found[rows] = float8.stored(weight[rows], _spread(scales[i], weight.shape[1]))
    return found


def dequantized(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return E4M3 values times their squares' scales, float32 [N, K]."""
    by_row = _spread(scales, weight.shape[1]).repeat_interleave(SIDE, dim=0)
    return weight.float() * by_row[: weight.shape[0]]


def rounded_inputs(inputs: torch.Tensor) -> torch.Tensor:
    """Return what inputs [..., K] become when each token's runs of 128 pass through E4M3 under their own scales."""
    grouped = _runs(inputs)
    found = float8.rounded(grouped, float8.token_scales(grouped))
    return found.flatten(-2)[..., : inputs.shape[-1]]


def _runs(values: torch.Tensor) -> torch.Tensor:
    """Return [..., ceil(K/128), 128], with zeros behind the last."""
    import torch

    missing = -values.shape[-1] % SIDE
    return torch.nn.functional.pad(values, (0, missing)).unflatten(-1, (-1, SIDE))


def _spread(scales: torch.Tensor, columns: int) -> torch.Tensor:
    return scales.repeat_interleave(SIDE, dim=-1)[..., :columns]
