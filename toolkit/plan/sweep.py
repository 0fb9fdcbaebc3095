"""What happens as one thing grows: a curve of predictions, and the cliff where requests begin to wait."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from toolkit.errors import UsageError
from toolkit.plan.candidates import Candidate
from toolkit.specs import Prediction, Workload

MOST_POINTS = 25
#: One request in a day, and more than any server answers.
SLOWEST_RPS, FASTEST_RPS = 1e-5, 1e6
CONCURRENCY, RATE, ISL, OSL = "concurrency", "rate", "isl", "osl"
#: What may grow, and what its axis is called.
LABELS = {
    CONCURRENCY: "requests in flight",
    RATE: "requests a second",
    ISL: "input tokens",
    OSL: "output tokens",
}
#: What a server does with more requests than its cache holds, by its scheduler's policy.
AFTER_THE_CLIFF = {
    "guaranteed_no_evict": "further requests wait for a place",
    "max_utilization": "running requests are thrown out and start again",
}


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What is swept, from where to where."""

    name: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of what is swept."""

    value: float
    prediction: Prediction
    is_beyond_cliff: bool


@dataclass(frozen=True, kw_only=True)
class Cliff:
    """The most requests that run at once; one more makes somebody wait."""

    concurrency: int
    cause: str  # kv_cache, max_batch_size
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Edge:
    """Where a curve breaks away; VALUE is None where it does not, as far as it was drawn."""

    axis: str
    value: float | None
    cause: str
    sentence: str


def axis_of(text: str) -> Axis:
    """Return what `concurrency=1..256` asks for; raises UsageError for what is no range."""
    name, _, span = text.strip().partition("=")
    first, _, last = span.partition("..")
    try:
        low = float(first)
        high = float(last) if last else low
    except ValueError:
        low = high = math.nan
    is_whole = name == RATE or (low == int(low) and high == int(high) if math.isfinite(low + high) else False)
    if name not in LABELS or not is_whole or not 0 < low <= high < math.inf:
        known = ", ".join(LABELS)
        raise UsageError(
            f"--sweep {text} is no range.", hint=f"Write --sweep concurrency=1..256; what may grow is {known}."
        )
    if name == RATE and not SLOWEST_RPS <= low <= high <= FASTEST_RPS:
        raise UsageError(
            f"--sweep {text} leaves what a server is asked.",
            hint=f"Write requests a second from {SLOWEST_RPS:g} to {FASTEST_RPS:g}.",
        )
    return Axis(name=name, low=low, high=high)


def edge_of(made: Candidate, load: Workload, axis: Axis, predict: Callable[..., Prediction]) -> Edge:
    """Return where the curve of a server over AXIS breaks away."""
    cliff = cliff_of(made)
    if axis.name == CONCURRENCY:
        return Edge(axis=axis.name, value=cliff.concurrency, cause=cliff.cause, sentence=cliff.sentence)
    if axis.name == RATE:
        full = predict(made.setup, replace(load, concurrency=None, rate_rps=None))
        most = full.output_tps.mid / load.osl
        why = f"with {full.batch:.0f} requests in flight it can do no more ({full.bound_by}), and others queue"
        return Edge(
            axis=RATE,
            value=most,
            cause=full.bound_by,
            sentence=f"Latency cliff at {most:.3g} requests a second: {why}.",
        )
    return _length_edge(made, load, axis)


def _length_edge(made: Candidate, load: Workload, axis: Axis) -> Edge:
    """Return the longest requests of which as many as are asked for, or as the batch holds, run at once."""
    wanted = load.concurrency or made.sizing.limits.max_batch_size
    others = load.osl if axis.name == ISL else load.isl
    longest = math.floor(made.setup.kv_capacity_tokens / wanted - others)
    if longest >= axis.high:
        said = f"{wanted} requests run at once up to {axis.high:.0f} {LABELS[axis.name]}."
        return Edge(axis=axis.name, value=None, cause="", sentence=said)
    said = (
        f"Latency cliff beyond {max(0, longest)} {LABELS[axis.name]}: the KV cache of "
        f"{made.setup.kv_capacity_tokens:.0f} tokens holds fewer than {wanted} such requests."
    )
    return Edge(axis=axis.name, value=float(max(0, longest)), cause="kv_cache", sentence=said)


def over(made: Candidate, load: Workload, axis: Axis, *, edge: Edge, predict: Callable[..., Prediction]) -> list[Point]:
    """Return the curve of one server over AXIS, with the points on both sides of its edge."""
    points = []
    for value in _values(axis, edge):
        found = predict(made.setup, _load_at(load, axis.name, value))
        points.append(
            Point(value=value, prediction=found, is_beyond_cliff=edge.value is not None and value > edge.value)
        )
    return points


def _load_at(load: Workload, name: str, value: float) -> Workload:
    if name == CONCURRENCY:
        return replace(load, concurrency=round(value), rate_rps=None)
    if name == RATE:
        return replace(load, concurrency=None, rate_rps=value)
    if name == ISL:
        return replace(load, isl=value, isl_max=math.ceil(value))
    return replace(load, osl=value, osl_max=math.ceil(value))


def _values(axis: Axis, edge: Edge) -> Sequence[float]:
    if axis.name != RATE:
        also = () if edge.value is None else (int(edge.value), int(edge.value) + 1)
        return steps(int(axis.low), int(axis.high), also=also)
    ratio = axis.high / axis.low
    return sorted({axis.low * ratio ** (step / (MOST_POINTS - 1)) for step in range(MOST_POINTS)})


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


def steps(low: int, high: int, *, also: Iterable[int] = ()) -> list[int]:
    """Return whole numbers from LOW to HIGH, evenly apart in proportion, and those of ALSO that lie between."""
    if high - low < MOST_POINTS:
        return list(range(low, high + 1))
    ratio = math.log(high / low) / (MOST_POINTS - 1)
    even = {round(low * math.exp(ratio * step)) for step in range(MOST_POINTS)}
    return sorted({low, high, *even, *(value for value in also if low <= value <= high)})
