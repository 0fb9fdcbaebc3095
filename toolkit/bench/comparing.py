"""Two load tests side by side: what changed, and whether the noise of their requests could have made it.

The confidence interval of each change comes from the bootstrap (Efron, Annals of Statistics 7, 1979): requests are
drawn again with replacement, and throughput from slices of the run's time, since its requests are not independent. A
change is called one when the interval leaves zero out and the change is larger than what is tolerated.

Requests of one queue wait alike, so that many of them say as much as a few: they count as so many independent ones as
the means of stretches of the run show (search.independent).

A percentile need not be drawn request by request: the k-th smallest of n draws from n sorted values is the value at n
times a Beta(k, n - k + 1) number, as the ranks of uniform draws are.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.bench.latency import LATENCIES, percentile
from toolkit.bench.reading import Result
from toolkit.bench.search import independent
from toolkit.bench.summary import tokens_between
from toolkit.specs import RequestRecord

DRAWS = 1000
SLICES = 12
#: Stretches by which it is seen how alike neighbours are, and how much wider an interval of so few is (Student's t).
BATCHES = 10
WIDER = 2.26 / 1.96
CONFIDENCE = 95.0
SHARES = (50, 95)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One metric of both runs."""

    metric: str  # ttft_ms p50, output_token_throughput_tps, ...
    unit: str
    before: float
    after: float
    change_pct: float  # of before
    low_pct: float  # 95 % confidence interval of the change
    high_pct: float
    verdict: str  # better, worse, same


def compare(before: Result, after: Result, *, tolerated_pct: float = 5.0, seed: int = 0) -> list[Change]:
    """Return the changes from BEFORE to AFTER; metrics that one of them lacks are left out."""
    changes = []
    for name in ("ttft_ms", "itl_ms", "e2e_latency_ms"):
        for share in SHARES:
            pair = [_latencies(result, name) for result in (before, after)]
            if all(pair) and percentile(sorted(pair[0]), share):
                made = [_percentiles(values, share, seed=f"{seed}/{name}/{i}") for i, values in enumerate(pair)]
                changes.append(_change(f"{name} p{share}", "ms", made, is_more_better=False, tolerated=tolerated_pct))
    slices = [_slices(result) for result in (before, after)]
    if all(map(any, slices)) and not (_is_given(before) and _is_given(after)):
        made = [_means(values, seed=f"{seed}/tps/{i}") for i, values in enumerate(slices)]
        changes.append(
            _change("output_token_throughput_tps", "tokens/s", made, is_more_better=True, tolerated=tolerated_pct)
        )
    failed = [sum(record.outcome == "failed" for record in result.records) for result in (before, after)]
    if any(failed):
        changes.append(_failures(failed, [len(result.records) for result in (before, after)]))
    return changes


def _is_given(result: Result) -> bool:
    """Whether a run's throughput is what was asked for and says nothing of the server: an open loop, kept up with."""
    arrival = result.document.get("profile", {}).get("arrival", "closed")
    return arrival != "closed" and result.document.get("backlog_growth_rps") is None


def _latencies(result: Result, name: str) -> list[float]:
    """Return the latencies of what succeeded, in the order of time."""
    ok = sorted((r for r in result.records if r.outcome == "ok"), key=lambda record: record.scheduled_s)
    return [value for record in ok if (value := LATENCIES[name](record)) is not None]


def _slices(result: Result) -> list[float]:
    """Return output tokens per second of equal slices of time, without the first and the last: they ramp."""
    ok = [record for record in result.records if record.outcome == "ok" and record.first_token_s is not None]
    if not ok:
        return []
    begin, end = min(record.sent_s for record in ok), max(record.end_s for record in ok)
    width = (end - begin) / SLICES
    if width <= 0:
        return []
    bounds = [begin + width * number for number in range(SLICES + 1)]
    return [_tokens(ok, bounds[i], bounds[i + 1]) / width for i in range(1, SLICES - 1)]


def _tokens(records: Sequence[RequestRecord], start: float, end: float) -> float:
    return sum(tokens_between(record, start, end) for record in records)


@dataclass(frozen=True)
class _Drawn:
    value: float
    draws: list[float]


def _percentiles(values: Sequence[float], share: float, *, seed: str) -> _Drawn:
    """Draw a percentile as that of so many independent requests as these are worth."""
    count = max(independent(_ranks(values), batches=BATCHES) / WIDER**2, 1.0)
    ordered = sorted(values)
    return _Drawn(percentile(ordered, share), drawn_percentiles(ordered, share, count=count, seed=seed))


def drawn_percentiles(ordered: Sequence[float], share: float, *, count: float, seed: str) -> list[float]:
    """Return a percentile of COUNT values drawn from these, again and again."""
    dice, most = random.Random(seed), len(ordered)
    rank = 1 + (count - 1) * share / 100
    return [ordered[min(int(most * dice.betavariate(rank, count - rank + 1)), most - 1)] for _ in range(DRAWS)]


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the place of each value among all: one that is far out is one value and no more."""
    places = {value: place for place, value in enumerate(sorted(values))}
    return [float(places[value]) for value in values]


def _means(values: Sequence[float], *, seed: str) -> _Drawn:
    dice, mean = random.Random(seed), statistics.fmean(values)
    draws = [statistics.fmean(dice.choices(values, k=len(values))) for _ in range(DRAWS)]
    return _Drawn(mean, [mean + WIDER * (draw - mean) for draw in draws])


def _change(metric: str, unit: str, made: Sequence[_Drawn], *, is_more_better: bool, tolerated: float) -> Change:
    before, after = made
    ratios = sorted(100 * (b / a - 1) for a, b in zip(before.draws, after.draws, strict=True) if a > 0) or [0.0]
    change = 100 * (after.value / before.value - 1)
    low, high = (percentile(ratios, share) for share in ((100 - CONFIDENCE) / 2, (100 + CONFIDENCE) / 2))
    is_change = (low > 0 or high < 0) and abs(change) > tolerated
    verdict = "same" if not is_change else "better" if (change > 0) == is_more_better else "worse"
    return Change(
        metric=metric, unit=unit, before=before.value, after=after.value, change_pct=change, low_pct=low,
        high_pct=high, verdict=verdict,
    )  # fmt: skip


def _failures(failed: Sequence[int], counts: Sequence[int]) -> Change:
    """Return the change of the share of failed requests, in points: a share of nothing has no ratio."""
    dice = random.Random("failures")
    # Jeffreys' interval of each share, drawn from: right for shares near zero, where resampling says "never".
    before, after = (
        [100 * dice.betavariate(bad + 0.5, count - bad + 0.5) for _ in range(DRAWS)]
        for bad, count in zip(failed, counts, strict=True)
    )
    points = sorted(b - a for a, b in zip(before, after, strict=True))
    low, high = (percentile(points, share) for share in ((100 - CONFIDENCE) / 2, (100 + CONFIDENCE) / 2))
    shares = [100 * bad / count for bad, count in zip(failed, counts, strict=True)]
    return Change(
        metric="failed requests", unit="%", before=shares[0], after=shares[1], change_pct=shares[1] - shares[0],
        low_pct=low, high_pct=high, verdict="worse" if low > 0 else "better" if high < 0 else "same",
    )  # fmt: skip
