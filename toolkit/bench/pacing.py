"""When requests of an open loop are due: gaps of mean one, stretched by the rate that holds at the time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from toolkit.errors import UsageError
from toolkit.specs import Stage


def due_times(stages: Sequence[Stage], gaps: Iterable[float]) -> Iterator[float]:
    """Yield the times at which the expected number of arrivals reaches the running sum of GAPS; ends with the stages.

    Arrivals of a rate that changes are those of rate one in the time that the rate itself counts (the time-rescaling
    theorem: Brown et al., Neural Computation 14, 2002). Within a stage that count is a parabola, solved exactly.
    """
    begin_s, counted = 0.0, 0.0
    left = itertools.accumulate(gaps)
    wanted = next(left)
    for stage in stages:
        length_s = math.inf if stage.duration_s is None else stage.duration_s
        slope = (stage.end_rps - stage.start_rps) / length_s
        total = (stage.start_rps + stage.end_rps) / 2 * length_s
        while wanted - counted <= total:
            yield begin_s + _reached(stage.start_rps, slope, wanted - counted)
            wanted = next(left)
        begin_s, counted = begin_s + length_s, counted + total


def _reached(start_rps: float, slope: float, count: float) -> float:
    """Return when start_rps x t + slope x t^2 / 2 reaches COUNT."""
    # The stable form of the quadratic formula: no difference of nearly equal numbers, and right for slope 0.
    root = math.sqrt(max(start_rps * start_rps + 2 * slope * count, 0.0))
    return 2 * count / (start_rps + root) if start_rps + root else 0.0


def parse(text: str, *, duration_s: float | None) -> tuple[Stage, ...]:
    """Read a rate in requests per second: 20, a ramp 5..50, or steps 5,10,20 of equal length.

    >>> parse("5..50", duration_s=30)
    (Stage(start_rps=5.0, end_rps=50.0, duration_s=30),)
    """
    if ".." in text:
        first, _, last = text.partition("..")
        return (Stage(start_rps=_rate(first, text), end_rps=_rate(last, text), duration_s=_needed(duration_s, text)),)
    rates = [_rate(part, text) for part in text.split(",")]
    each_s = None if len(rates) == 1 else _needed(duration_s, text) / len(rates)
    return tuple(Stage(start_rps=rate, end_rps=rate, duration_s=each_s) for rate in rates)


def _rate(part: str, text: str) -> float:
    try:
        rate = float(part)
    except ValueError:
        rate = math.nan
    if not (rate > 0 and math.isfinite(rate)):
        raise UsageError(
            f"--rate {text} is no rate: {part!r} is not a number above 0.",
            hint="Write requests per second: --rate 20, a ramp --rate 5..50, or steps --rate 5,10,20.",
        )
    return rate


def _needed(duration_s: float | None, text: str) -> float:
    if duration_s is None:
        raise UsageError(
            f"--rate {text} needs a length.", hint="Add --duration SECONDS: the ramp or the steps fill it."
        )
    return duration_s
