"""The latencies of one request, and the distribution of many."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from toolkit.specs import RequestRecord

PERCENTILES = (50, 90, 95, 99)


def send_lag_ms(record: RequestRecord) -> float | None:
    """Return how late the request left the client."""
    return 1000 * (record.sent_s - record.scheduled_s - record.held_s)


def ttft_ms(record: RequestRecord) -> float | None:
    """Return the time from the scheduled send to the first text."""
    return None if record.first_token_s is None else 1000 * (record.first_token_s - record.scheduled_s)


def itl_ms(record: RequestRecord) -> float | None:
    """Return the mean gap between tokens, corrected for several tokens in the first chunk."""
    later_tokens = record.output_tokens - record.first_chunk_tokens
    if record.first_token_s is None or record.last_token_s is None or later_tokens < 1:
        return None
    return 1000 * (record.last_token_s - record.first_token_s) / later_tokens


def tpot_ms(record: RequestRecord) -> float | None:
    """Return the time per token after the first text, up to the end of the response."""
    later_tokens = record.output_tokens - record.first_chunk_tokens
    if record.first_token_s is None or later_tokens < 1:
        return None
    return 1000 * (record.end_s - record.first_token_s) / later_tokens


def e2e_latency_ms(record: RequestRecord) -> float | None:
    """Return the time from the scheduled send to the end of the response."""
    return 1000 * (record.end_s - record.scheduled_s)


LATENCIES: Mapping[str, Callable[[RequestRecord], float | None]] = {
    "ttft_ms": ttft_ms,
    "itl_ms": itl_ms,
    "tpot_ms": tpot_ms,
    "e2e_latency_ms": e2e_latency_ms,
    "send_lag_ms": send_lag_ms,
}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return a percentile of ascending values, linear between neighbours; infinite where a neighbour is.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
    2.5
    """
    position = (len(ordered) - 1) * share / 100
    low = ordered[math.floor(position)]
    high = ordered[math.ceil(position)]
    if math.isinf(high):
        return low if position == math.floor(position) else high
    return low + (high - low) * (position - math.floor(position))


def distribution(values: Sequence[float]) -> dict[str, float | None]:
    """Return mean, min, max, population standard deviation and percentiles; all null without values."""
    if not values:
        return dict.fromkeys(("mean", "min", "max", "std", *(f"p{share}" for share in PERCENTILES)))
    ordered = sorted(values)
    return {
        "mean": statistics.fmean(ordered),
        "min": ordered[0],
        "max": ordered[-1],
        "std": statistics.pstdev(ordered),
        **{f"p{share}": percentile(ordered, share) for share in PERCENTILES},
    }


def percentiles_with_failures(values: Sequence[float], failures: int) -> dict[str, float | None]:
    """Return the percentiles with each failure as an infinite latency; null is infinite."""
    ordered = sorted(values) + [math.inf] * failures
    found = {f"p{share}": percentile(ordered, share) if ordered else math.inf for share in PERCENTILES}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}
