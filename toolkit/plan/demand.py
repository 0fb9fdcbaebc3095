"""From what people say they need to what a planner counts: users to a rate, a trace to lengths, a rate to requests in
flight."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from toolkit.errors import UsageError
from toolkit.specs import Prediction, Workload


def rate_of_users(users: int, requests_per_hour: float, peak_factor: float) -> float:
    """Return requests a second at the peak."""
    for what, value in (("--users", users), ("--requests-per-hour", requests_per_hour), ("--peak", peak_factor)):
        if not value > 0 or not math.isfinite(value):
            raise UsageError(f"{what} {value:g} is not above zero.", hint="--users 500 --requests-per-hour 6 --peak 3")
    return users * requests_per_hour / 3600 * peak_factor


def workload_of_trace(lengths: Sequence[tuple[int, int]], *, rate_rps: float | None = None) -> Workload:
    """Return the workload that (input tokens, output tokens) of real requests are."""
    if not lengths:
        raise UsageError(
            "The trace has no requests.", hint="One JSON object a line, with input_length and output_length."
        )
    inputs, outputs = [float(each) for each, _ in lengths], [float(each) for _, each in lengths]
    return Workload(
        isl=statistics.fmean(inputs),
        osl=statistics.fmean(outputs),
        isl_max=int(max(inputs)),
        osl_max=int(max(outputs)),
        isl_cv=statistics.pstdev(inputs) / max(1.0, statistics.fmean(inputs)),
        osl_cv=statistics.pstdev(outputs) / max(1.0, statistics.fmean(outputs)),
        rate_rps=rate_rps,
    )


def latency_s(found: Prediction, osl: float) -> float:
    """Return the seconds of a request: its first token, and the others."""
    return (found.ttft_ms.mid + max(0.0, osl - 1) * found.tpot_ms.mid) / 1000


def rate_at(found: Prediction, *, concurrency: float, osl: float) -> float:
    """Return the requests a second that CONCURRENCY in flight are, by Little's law."""
    return concurrency / latency_s(found, osl)
