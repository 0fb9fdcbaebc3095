"""Whether a server keeps up with an open loop: latencies of a queue that grows are those of the run's length."""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Sequence

from toolkit.bench.runs import Run

#: Looks at the number in flight, evenly over the later two thirds of the sending.
LOOKS = 60
FEWEST_REQUESTS = 40
#: Of the rate: so much more arrives than is answered.
LEAST_GROWTH = 0.01
#: Standard deviations of a Poisson number: what grows less may be chance.
SURE = 3.0


def growth_rps(run: Run) -> float | None:
    """Return by how many requests a second what is in flight grows; None for a server that keeps up, or no open loop.

    A line is fitted to the requests in flight (least squares). It counts as growth where it is more than a hundredth of
    the rate, and over the time looked at more than chance makes of so many in flight.
    """
    records = [record for record in run.records if record.outcome != "cancelled"]
    stages = run.profile.stages
    is_steady = len(stages) == 1 and stages[0].start_rps == stages[0].end_rps and not run.profile.is_capped
    # Conversations begin at the rate, and their later turns come on top until as many end as begin.
    if not is_steady or run.profile.turns or len(records) < FEWEST_REQUESTS:
        return None
    begins, ends = sorted(record.scheduled_s for record in records), sorted(record.end_s for record in records)
    # Until the first have ended, what is in flight grows in any case.
    filled = begins[0] + statistics.median(record.end_s - record.scheduled_s for record in records)
    start, end = max(begins[len(begins) // 3], filled), begins[-1]
    if end <= start:
        return None
    times = [start + (end - start) * (look + 0.5) / LOOKS for look in range(LOOKS)]
    counts = [bisect.bisect_right(begins, at) - bisect.bisect_right(ends, at) for at in times]
    slope = _slope(times, counts)
    rate = len(begins) / (begins[-1] - begins[0])
    chance = SURE * math.sqrt(max(sum(counts) / LOOKS, 1.0))
    return slope if slope > LEAST_GROWTH * rate and slope * (end - start) > chance else None


def _slope(times: Sequence[float], counts: Sequence[int]) -> float:
    middle, mean = sum(times) / len(times), sum(counts) / len(counts)
    spread = sum((at - middle) ** 2 for at in times)
    return sum((at - middle) * (count - mean) for at, count in zip(times, counts, strict=True)) / spread
