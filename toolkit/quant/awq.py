"""The search of AWQ (Lin et al., arXiv:2306.00978), scored on the linear's real output error.

A linear computes W x. Its input is scaled by 1/s and its weight by s, channel by channel, before the weight is rounded
to 4-bit groups. With D the change of the effective weight, the mean squared output error over the calibration tokens is
tr(D G D'), where G = E[x x']: one K by K matrix stands for all tokens, so a candidate costs one product and no pass
over the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.quant import gptq, int4
from toolkit.quant.algorithm import LinearGroup, Settings
from toolkit.weights import Linear, split_rows

if TYPE_CHECKING:
    import torch

    from toolkit.quant.statistics import InputStatistics

#: s = mean|x|^alpha; the grid is searched coarse, then around the best.
COARSE_ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
FINE_STEPS = (0.125, 0.0625)
#: Share of amax at which a group is clipped.
CLIP_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65)
#: Scales beyond this range would leave float16 prequant factors with few bits.
MAX_SCALE = 1e4
#: Rows of the weight that vote on alpha; all rows are rounded. More change the choice little and cost much.
MAX_VOTING_ROWS = 768


@dataclass(frozen=True, kw_only=True)
class Found:
    """The best channel scales: float32 [K], weights are multiplied by them."""

    channel_scales: torch.Tensor
    alpha: float
    error: float


def prequant(group: LinearGroup, settings: Settings) -> torch.Tensor:
    """Return the searched factors [K] of a group's input, in the dtype in which the engine multiplies by them."""
    import torch

    assert settings.group_size, "plan.conversion chose no group size"
    assert group.statistics, "AWQ needs calibration"
    weight = torch.cat([part.float() for part in group.weights.values()])
    found = search(weight, group.statistics, group_size=settings.group_size)
    return (1 / found.channel_scales).to(settings.dtype)


def quantized(group: LinearGroup, prequant: torch.Tensor, *, group_size: int) -> dict[str, Linear]:
    """Return integers for inputs that are multiplied by PREQUANT [K], under clipped scales, rounded with feedback."""
    import torch

    assert group.statistics, "GPTQ needs calibration"
    factors = prequant.float()
    scaled = torch.cat([part.float() for part in group.weights.values()]) / factors
    gram = group.statistics.gram * factors.outer(factors)
    scales = clipped_scales(scaled, gram, group_size=group_size)
    integers = gptq.rounded(scaled, scales, gram).to(torch.int8)
    whole = Linear(algo="W4A16_AWQ", weight=integers, weight_scale=scales, prequant=prequant)
    return split_rows(whole, {part: weight.shape[0] for part, weight in group.weights.items()})


def search(weight: torch.Tensor, statistics: InputStatistics, *, group_size: int) -> Found:
    """Return channel scales for a float32 [N, K] weight that least change its output on the calibration tokens."""
    gram = statistics.gram
    voters = weight[:: max(1, weight.shape[0] // MAX_VOTING_ROWS)]

    def tried(alpha: float) -> Found:
        scales = channel_scales(statistics.mean_abs, alpha)
        scaled = voters * scales
        integers = int4.rounded(scaled, group := int4.group_scales(scaled, group_size))
        change = int4.dequantized(integers, group).div_(scales).sub_(voters)
        return Found(channel_scales=scales, alpha=alpha, error=float(((change @ gram) * change).sum()))

    best = min((tried(alpha) for alpha in COARSE_ALPHAS), key=lambda found: found.error)
    for step in FINE_STEPS:
        near = [alpha for alpha in (best.alpha - step, best.alpha + step) if 0 <= alpha <= 1]
        best = min((best, *(tried(alpha) for alpha in near)), key=lambda found: found.error)
    return best


def channel_scales(mean_abs: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return mean|x|^alpha, centred so that the largest and the smallest are as far from 1."""
    scales = mean_abs.clamp(min=1e-8).pow(alpha)
    scales = scales / (scales.max() * scales.min()).sqrt()
    return scales.clamp(1 / MAX_SCALE, MAX_SCALE)


def clipped_scales(scaled: torch.Tensor, gram: torch.Tensor, *, group_size: int) -> torch.Tensor:
    """Return group scales [N, K/g] of a scaled weight, each clipped where that lowers its group's output error.

    `gram` is E[x x'] of the scaled weight's own input. A group's error is taken alone: the quadratic form of its change
    with its own block of it.
    """
    import torch

    plain = int4.group_scales(scaled, group_size)
    blocks = _diagonal_blocks(gram, group_size)
    grouped = scaled.reshape(*plain.shape, group_size)
    best, best_error = plain, None
    for ratio in CLIP_RATIOS:
        scales = plain * ratio
        change = int4.dequantized(int4.rounded(scaled, scales), scales).reshape(grouped.shape) - grouped
        by_group = change.transpose(0, 1)  # [K/g, N, g]
        error = ((by_group @ blocks) * by_group).sum(-1).T
        if best_error is None:
            best_error = error
            continue
        best = torch.where(error < best_error, scales, best)
        best_error = torch.minimum(error, best_error)
    return best


def _diagonal_blocks(matrix: torch.Tensor, size: int) -> torch.Tensor:
    """Return the [K/g, g, g] blocks on the diagonal of a [K, K] matrix."""
    import torch

    count = matrix.shape[0] // size
    return torch.stack([matrix[i * size : (i + 1) * size, i * size : (i + 1) * size] for i in range(count)])
