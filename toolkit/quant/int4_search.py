"""4-bit integers for known inputs: clipped group scales, then rounding with feedback, some rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import gptq, int4
from toolkit.quant.algorithm import LinearGroup
from toolkit.quant.blocks import best_scales, chunks, gathered, row_blocks, scatter
from toolkit.quant.statistics import diagonal_blocks
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch

#: Share of amax at which a group is clipped.
CLIP_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65)


def quantized(group: LinearGroup, prequant: torch.Tensor, *, group_size: int) -> dict[str, Linear]:
    """Return integers for inputs that are multiplied by PREQUANT [K], which all parts share."""
    import torch

    assert group.statistics, "GPTQ needs calibration"
    factors = prequant.float()
    feedback = gptq.feedback(group.statistics.gram, factors)
    by_group = factors.view(-1, group_size)
    blocks = diagonal_blocks(group.statistics.gram, group_size) * by_group.unsqueeze(1) * by_group.unsqueeze(2)
    integers, scales = {}, {}
    for part, weight in group.weights.items():
        integers[part] = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        scales[part] = torch.empty(weight.shape[0], blocks.shape[0], device=weight.device)
    for pieces in chunks(group.weights):
        scaled = gathered(group.weights, pieces).div_(factors)
        clipped = clipped_scales(scaled, blocks)
        scatter(clipped, scales, pieces)
        scatter(gptq.rounded(scaled, clipped, feedback, nearest=int4.nearest_), integers, pieces)
    return {
        part: Linear(algo="W4A16_AWQ", weight=integers[part], weight_scale=scales[part], prequant=prequant)
        for part in group.weights
    }


def clipped_scales(scaled: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Return group scales [N, K/g] of a scaled weight, each clipped where that lowers its group's output error.

    `blocks` [K/g, g, g] are those on the diagonal of E[x x'] of the scaled weight's own input.
    """
    import torch

    size = blocks.shape[-1]
    found = torch.empty(scaled.shape[0], blocks.shape[0], device=scaled.device)
    for rows in row_blocks(scaled):
        by_group = scaled[rows].unflatten(1, (-1, size)).transpose(0, 1).contiguous()  # [K/g, n, g]
        plain = int4.scale_of(by_group.abs().amax(-1, keepdim=True))
        tried = ((scales, scales) for scales in (plain * ratio for ratio in CLIP_RATIOS))
        found[rows] = best_scales(by_group, blocks, tried, nearest=int4.nearest_).squeeze(-1).T
    return found
