"""The search of AWQ (Lin et al., arXiv:2306.00978) for the factors by which input channels are scaled.

A linear computes W x. Its input is scaled by 1/s and its weight by s, channel by channel, before the weight is rounded
to 4-bit groups. With D the change of the effective weight, the mean squared output error over the calibration tokens is
tr(D G D'), where G = E[x x']: one K by K matrix stands for all tokens, so a candidate costs one product and no pass
over the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import int4
from toolkit.quant.algorithm import LinearGroup, Settings
from toolkit.quant.blocks import centred

if TYPE_CHECKING:
    import torch

#: s = mean|x|^alpha; the grid is searched coarse, then around the best.
COARSE_ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
FINE_STEPS = (0.125, 0.0625)
#: Scales beyond this range would leave float16 prequant factors with few bits.
MAX_SCALE = 1e4
#: Rows of the weights that vote on alpha; all rows are rounded. More change the choice little and cost much.
MAX_VOTING_ROWS = 256


def prequant(group: LinearGroup, settings: Settings) -> torch.Tensor:
    """Return the factors [K] of a group's input, in the dtype in which the engine multiplies by them.

    They are the channel scales' inverse, of those that least change the group's output on the calibration tokens.
    """
    assert settings.group_size, "plan.conversion chose no group size"
    assert group.statistics, "AWQ needs calibration"
    size, statistics = settings.group_size, group.statistics
    voters = group.voters(MAX_VOTING_ROWS)

    def error_of(alpha: float) -> float:
        factors = channel_scales(statistics.mean_abs, alpha).reciprocal().to(settings.dtype).float()
        scaled = voters / factors
        integers = int4.rounded(scaled, scales := int4.group_scales(scaled, size))
        change = int4.dequantized(integers, scales).mul_(factors).sub_(voters)
        return float(statistics.output_error(change))

    errors = {alpha: error_of(alpha) for alpha in COARSE_ALPHAS}
    for step in FINE_STEPS:
        best = min(errors, key=errors.__getitem__)
        errors |= {alpha: error_of(alpha) for alpha in (best - step, best + step) if 0 <= alpha <= 1}
    best = min(errors, key=errors.__getitem__)
    return channel_scales(statistics.mean_abs, best).reciprocal().to(settings.dtype)


def channel_scales(mean_abs: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return mean|x|^alpha, centred so that the largest and the smallest are as far from 1; 1 where x is always 0."""
    return centred(mean_abs.pow(alpha), mean_abs > 0, limit=MAX_SCALE)
