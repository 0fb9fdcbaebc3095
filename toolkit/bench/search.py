"""The highest load that meets the objectives, in few runs: bracket it, then guess where the line is crossed.

Pure: `Search.next` says what to try, `Search.take` is told how it went. A guess follows the latencies measured on both
sides (regula falsi on logarithms, as latency grows steeply with load); one that ends on the same side as the guess
before is followed by a bisection, so that a flat side costs no runs. A server that did not keep up with a rate has
shown what it can answer: that is the next guess. What a run of finitely many requests can say is
bounded by Wilson's interval (JASA 22, 1927) of the share that met the objective: only runs on one side of it for sure
make the confidence interval.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: Of the normal distribution: 95 % of it lies within so many standard deviations.
Z_95 = 1.96
GROWTH = 4.0
MIN_STEP, MAX_STEP = 0.15, 0.85
CLOSE_ENOUGH = 1.05
MOST_RUNS = 8
BATCHES = 20
#: Of what an overloaded server answers: what it answers without being overloaded.
BELOW_CAPACITY = 0.98


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One run: its load, and how far it was from the objectives."""

    load: float  # requests in flight, or per second
    is_met: bool
    excess: float  # measured over target of the worst objective, 1 is the line; infinite where failures made it so
    certainty: float  # +1: met for sure, -1: missed for sure, 0: within the noise of so many requests
    answered: float | None = None  # a rate that was not kept up with: how many a second were answered


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search came to."""

    best: float | None  # the highest load that met; None: not even the lowest did
    low: float | None  # confidence interval of the limit: met for sure at, missed for sure at; None: open
    high: float | None
    is_bracketed: bool  # False: the highest load that was tried still met
    tried: tuple[Tried, ...]


class Search:
    """Looks for a limit between LOWEST and HIGHEST."""

    def __init__(
        self, *, first: float, lowest: float, highest: float, is_whole: bool, most_runs: int = MOST_RUNS
    ) -> None:
        self._first = min(max(first, lowest), highest)
        self._lowest, self._highest, self._is_whole = lowest, highest, is_whole
        self._most_runs = most_runs
        self._tried: list[Tried] = []

    @property
    def is_fresh(self) -> bool:
        """Whether nothing was tried yet."""
        return not self._tried

    @property
    def met(self) -> Tried | None:
        """Return the run with the highest load that met, below every load that missed."""
        missed = self.missed
        below = [one for one in self._tried if one.is_met and (missed is None or one.load < missed.load)]
        return max(below, key=lambda one: one.load, default=None)

    @property
    def missed(self) -> Tried | None:
        """Return the run with the lowest load that missed."""
        return min((one for one in self._tried if not one.is_met), key=lambda one: one.load, default=None)

    def take(self, one: Tried) -> None:
        """Be told how a run went."""
        self._tried.append(one)

    def next(self) -> float | None:
        """Return the load to try now; None when the limit is known well enough."""
        if not self._tried:
            return self._first
        if len(self._tried) >= self._most_runs:
            return None
        met, missed = self.met, self.missed
        if missed is None:
            return None if met is None or met.load >= self._highest else self._rounded(met.load * GROWTH)
        if met is None:
            return None if missed.load <= self._lowest else self._rounded(missed.load / GROWTH)
        if missed.load / met.load <= CLOSE_ENOUGH or (self._is_whole and missed.load - met.load <= 1):
            return None
        return self._between(met, missed)

    def _between(self, met: Tried, missed: Tried) -> float | None:
        last = self._tried[-1]
        if last is missed and last.answered and met.load < BELOW_CAPACITY * last.answered < missed.load:
            return self._rounded(BELOW_CAPACITY * last.answered)
        step, last_two = 0.5, self._tried[-2:]
        is_stuck = len({one.is_met for one in last_two}) == 1
        if not is_stuck and math.isfinite(missed.excess) and 0 < met.excess < missed.excess:
            left, right = math.log(met.excess), math.log(missed.excess)
            step = min(max(-left / (right - left), MIN_STEP), MAX_STEP)
        load = self._rounded(met.load * (missed.load / met.load) ** step)
        if self._is_whole:  # a guess that rounds to one of the two stands for its neighbour
            load = min(max(load, met.load + 1), missed.load - 1)
        return load if met.load < load < missed.load else None

    def _rounded(self, load: float) -> float:
        inside = min(max(load, self._lowest), self._highest)
        return float(round(inside)) if self._is_whole else float(f"{inside:.3g}")

    def result(self) -> Found:
        """Return what is known."""
        met, missed = self.met, self.missed
        sure = [one.load for one in self._tried if one.certainty > 0 and (missed is None or one.load < missed.load)]
        against = [one.load for one in self._tried if one.certainty < 0 and (met is None or one.load > met.load)]
        return Found(
            best=met.load if met else None,
            low=max(sure, default=None),
            high=min(against, default=None),
            is_bracketed=missed is not None,
            tried=tuple(self._tried),
        )


def independent(values: Sequence[float], *, batches: int = BATCHES) -> float:
    """Return how many independent requests these are worth, in the order of their time: those in one queue wait alike.

    By batch means: independent values would make the means of stretches vary by the variance of one over the
    length of a stretch (Law and Carson, Operations Research 27, 1979).
    """
    length = len(values) // batches
    spread = statistics.pvariance(values) if length else 0.0
    if not spread:
        return float(len(values))
    means = [statistics.fmean(values[length * i : length * (i + 1)]) for i in range(batches)]
    return len(values) / max(length * statistics.variance(means) / spread, 1.0)


def certainty(good: float, total: float, share: float) -> float:
    """Return +1 or -1 where GOOD of TOTAL is above or below SHARE with 95 % confidence, else 0."""
    low, high = wilson(good, total)
    return 1.0 if low >= share else -1.0 if high < share else 0.0


def wilson(good: float, total: float, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's confidence interval of a share."""
    if not total:
        return 0.0, 1.0
    share, square = good / total, z * z
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = z / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)
