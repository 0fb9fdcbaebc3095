"""The smoothing of SmoothQuant (Xiao et al., arXiv:2211.10438), its alpha searched on the linear's output error.

Both roundings are counted, each channel for itself. An input rounded under one static step a carries an error of about
a*a/12 in every channel, which the weight multiplies; the weight's own change multiplies the input's mean square. On a
real model the full second moment of the input chose the same alphas, at thirty times the cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import int8
from toolkit.quant.algorithm import LinearGroup
from toolkit.quant.blocks import centred, column_amax

if TYPE_CHECKING:
    import torch

    from toolkit.quant.statistics import InputStatistics

#: Other text has larger inputs than the calibration's largest, and what saturates costs more than a coarser step: on a
#: real model 1.3 to 1.6 were best, after calibration on a file and, by more, on the model's own text.
HEADROOM = 1.4
ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
#: Factors beyond this range would leave float16 with few bits.
MAX_FACTOR = 1e4
MAX_VOTING_ROWS = 512


def search(group: LinearGroup, dtype: torch.dtype) -> torch.Tensor:
    """Return the factors [K] of the input, in DTYPE, that least change the group's output on the calibration tokens."""
    import torch

    assert group.statistics, "int8_sq needs calibration"
    statistics = group.statistics
    weight_amax = torch.stack([column_amax(weight) for weight in group.weights.values()]).amax(0)
    voters = group.voters(MAX_VOTING_ROWS)

    def factors_of(alpha: float) -> torch.Tensor:
        return _factors(statistics.max_abs, weight_amax, alpha).to(dtype)

    def error_of(alpha: float) -> float:
        factors = factors_of(alpha).float()
        scaled = voters / factors
        change = (int8.rounded(scaled, int8.row_scales(scaled).unsqueeze(1)) - scaled).mul_(factors)
        of_weight = (change.square_().sum(0) * statistics.mean_square).sum()
        step = int8.scale_of((statistics.max_abs * factors).amax())  # with HEADROOM the choice was a worse one
        return float(of_weight + step.square() / 12 * scaled.square_().sum())

    return factors_of(min(ALPHAS, key=error_of))


def activation_scale(statistics: InputStatistics, factors: torch.Tensor) -> torch.Tensor:
    """Return the static scale [] of an input that is multiplied by FACTORS [K]."""
    return int8.scale_of((statistics.max_abs * factors).amax() * HEADROOM)


def _factors(input_amax: torch.Tensor, weight_amax: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return weight^(1-alpha) / input^alpha, centred around 1; 1 where a channel is dead."""
    is_alive = (input_amax > 0) & (weight_amax > 0)
    return centred(weight_amax.pow(1 - alpha) / input_amax.pow(alpha), is_alive, limit=MAX_FACTOR)
