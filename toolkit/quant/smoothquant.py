"""The smoothing of SmoothQuant (Xiao et al., arXiv:2211.10438), its alpha searched on the linear's output error.

Both roundings are counted. An input rounded under one static step a carries an error of about a*a/12 in every channel,
which the weight multiplies; the weight's own error D multiplies the input, which E[x x'] stands for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.quant import int8
from toolkit.quant.algorithm import LinearGroup

if TYPE_CHECKING:
    import torch

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
#: Factors beyond this range would leave float16 with few bits.
MAX_FACTOR = 1e4
MAX_VOTING_ROWS = 512


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """`prequant` [K] multiplies the input, in the dtype in which it is stored."""

    prequant: torch.Tensor
    alpha: float
    error: float


def search(group: LinearGroup, dtype: torch.dtype) -> Smoothing:
    """Return the smoothing that least changes the group's output on the calibration tokens."""
    import torch

    assert group.statistics, "int8_sq needs calibration"
    statistics, weights = group.statistics, list(group.weights.values())
    channel_amax = torch.stack([weight.abs().amax(0).float() for weight in weights]).amax(0)
    total = sum(weight.shape[0] for weight in weights)
    voters = torch.cat([weight[:: max(1, total // MAX_VOTING_ROWS)].float() for weight in weights])
    gram = statistics.gram

    def tried(alpha: float) -> Smoothing:
        prequant = _factors(statistics.max_abs, channel_amax, alpha).to(dtype)
        factors = prequant.float()
        step = float((statistics.max_abs * factors).max()) / int8.QMAX
        scaled = voters / factors
        change = (int8.rounded(scaled, int8.row_scales(scaled).unsqueeze(1)) - scaled) * factors
        error = ((change @ gram) * change).sum() + step**2 / 12 * scaled.square().sum()
        return Smoothing(prequant=prequant, alpha=alpha, error=float(error))

    return min((tried(alpha) for alpha in ALPHAS), key=lambda found: found.error)


def _factors(input_amax: torch.Tensor, weight_amax: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return weight^(1-alpha) / input^alpha, centred around 1; 1 where a channel is dead."""
    import torch

    is_alive = (input_amax > 0) & (weight_amax > 0)
    if not is_alive.any():
        return torch.ones_like(input_amax)
    factors = weight_amax.pow(1 - alpha) / input_amax.pow(alpha)
    alive = factors[is_alive]
    factors = factors / (alive.max() * alive.min()).sqrt()
    return torch.where(is_alive, factors, 1.0).clamp(1 / MAX_FACTOR, MAX_FACTOR)
