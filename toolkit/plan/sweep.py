"""What happens as one thing grows: a curve of predictions, and the cliff where requests begin to wait."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from toolkit.plan.candidates import Candidate
from toolkit.specs import Prediction, Workload

MOST_POINTS = 25
#: What a server does with more requests than its cache holds, by its scheduler's policy.
AFTER_THE_CLIFF = {
    "guaranteed_no_evict": "further requests wait for a place",
    "max_utilization": "running requests are thrown out and start again",
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of what is swept."""

    value: int
    prediction: Prediction
    is_beyond_cliff: bool


@dataclass(frozen=True, kw_only=True)
class Cliff:
    """The most requests that run at once; one more makes somebody wait."""

    concurrency: int
    cause: str  # kv_cache, max_batch_size
    sentence: str


def cliff_of(made: Candidate) -> Cliff:
    """Return where the times of a server break away."""
    sizing = made.sizing
    if sizing.binding == "kv_cache":
        after = AFTER_THE_CLIFF[sizing.scheduler_policy]
        what = f"the KV cache of {sizing.kv.max_tokens} tokens is full of requests of {sizing.request_tokens}: {after}"
    else:
        what = f"max_batch_size {sizing.limits.max_batch_size} is reached: further requests queue"
    return Cliff(
        concurrency=sizing.max_concurrency,
        cause=sizing.binding,
        sentence=f"Latency cliff beyond {sizing.max_concurrency} requests in flight: {what}.",
    )


def over_concurrency(
    made: Candidate, load: Workload, values: Iterable[int], predict: Callable[..., Prediction]
) -> list[Point]:
    """Return the curve of one server over requests in flight."""
    most = made.sizing.max_concurrency
    return [
        Point(
            value=value,
            prediction=predict(made.setup, replace(load, concurrency=value, rate_rps=None)),
            is_beyond_cliff=value > most,
        )
        for value in values
    ]


def steps(low: int, high: int, *, also: Iterable[int] = ()) -> list[int]:
    """Return whole numbers from LOW to HIGH, evenly apart in proportion, and those of ALSO that lie between."""
    if high - low < MOST_POINTS:
        return list(range(low, high + 1))
    ratio = math.log(high / low) / (MOST_POINTS - 1)
    even = {round(low * math.exp(ratio * step)) for step in range(MOST_POINTS)}
    return sorted({low, high, *even, *(value for value in also if low <= value <= high)})
