"""How sure a prediction is: each constant's doubt, by its share of the time, and what no constant explains."""

from __future__ import annotations

import math
from collections.abc import Mapping

from toolkit.plan.speed.steps import UNSURE_BY
from toolkit.specs import Range

#: Eight of ten values of a normal distribution lie so many standard deviations around its mean, or closer.
EIGHTY_PERCENT = 1.2816


def log_sd_of(parts: Mapping[str, float], log_sd: Mapping[str, float], *, residual: float) -> float:
    """Return the standard deviation of the logarithm of a time that is the sum of PARTS."""
    total = sum(parts.values())
    shares: dict[str, float] = {}
    for part, seconds in parts.items():
        name = UNSURE_BY[part]
        shares[name] = shares.get(name, 0.0) + seconds / total
    return math.sqrt(residual**2 + sum((share * log_sd[name]) ** 2 for name, share in shares.items()))


def around(middle: float, log_sd: float) -> Range:
    """Return the interval that holds the truth eight times of ten."""
    spread = math.exp(EIGHTY_PERCENT * log_sd)
    return Range(low=middle / spread, mid=middle, high=middle * spread)
