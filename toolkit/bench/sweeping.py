"""A load that grows step by step: where its steps are, where more load stops paying, and where latency breaks away.

The knee is the load with the highest power, throughput over latency (Kleinrock, ICC 1979): in a closed loop, by
Little's law, the point from which a further request in flight adds more to latency than to throughput. The cliff is
the first step on which something grows much faster than the load: see `cliff_of`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.bench import shortage
from toolkit.errors import UsageError

PATTERN = re.compile(r"(concurrency|rate)\s*=\s*([0-9.]+\s*(?:\.\.\s*[0-9.]+|(?:,\s*[0-9.]+)*))")
STEPS_OF_RATES = 7
MOST_STEPS = 16
#: A latency that grows more than so many times as much as the load has broken away.
BREAK = 2.0
#: So much of a second is noise, whatever the ratio.
LEAST_RISE_MS = 20.0
FALLEN = 0.9
FAILED_SHARE = 0.01
#: Of the rate that is asked for: a server that answers fewer does not keep up.
KEPT_SHARE = 0.95


@dataclass(frozen=True, kw_only=True)
class Step:
    """One run of a sweep."""

    load: float  # in flight, or requests a second
    tokens_per_s: float
    requests_per_s: float
    e2e_mean_ms: float | None
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None
    itl_p50_ms: float | None
    itl_p95_ms: float | None
    failed_share: float
    errors: Mapping[str, int]
    limited_by: tuple[str, ...]
    evidence: tuple[str, ...]
    is_valid: bool
    joules_per_token: float | None = None
    cost_per_million: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cliff:
    """Where something breaks away, and why."""

    last_good: float
    first_bad: float
    signs: tuple[str, ...]  # what was seen
    cause: str  # what happened


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What a sweep found."""

    what: str  # concurrency, rate
    steps: tuple[Step, ...]
    knee: float | None
    is_knee_inside: bool  # False: the highest load is still the best, so the knee may be beyond it
    cliff: Cliff | None


def parse(text: str) -> tuple[str, tuple[float, ...]]:
    """Read what is swept.

    >>> parse("concurrency=1..16")
    ('concurrency', (1.0, 2.0, 4.0, 8.0, 16.0))
    """
    found = PATTERN.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(
            f"{text!r} is no sweep.", hint="Write --sweep concurrency=1..64, concurrency=1,8,32 or rate=1..20."
        )
    what, values = found.groups()
    try:
        loads = _between(what, values) if ".." in values else tuple(float(value) for value in values.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r} has something that is no number.", hint="Write --sweep rate=1..20.") from error
    is_whole = what == "rate" or all(load == int(load) for load in loads)
    if not is_whole or min(loads) <= 0 or not all(map(math.isfinite, loads)):
        raise UsageError(f"{text!r} has a load that cannot be.", hint="In flight are whole requests, from 1 upwards.")
    if len(set(loads)) < 2 or len(loads) > MOST_STEPS:
        raise UsageError(
            f"{text!r} has {len(set(loads))} loads.", hint=f"A sweep has at least two and at most {MOST_STEPS}."
        )
    return what, tuple(sorted(set(loads)))


def _between(what: str, values: str) -> tuple[float, ...]:
    low, high = (float(value) for value in values.split("..", 1))
    if not 0 < low < high:
        raise UsageError(f"From {low:g} to {high:g} nothing grows.", hint="Write the lower load first, above zero.")
    if what == "rate":
        ratio = (high / low) ** (1 / (STEPS_OF_RATES - 1))
        return (*(float(f"{low * ratio**step:.3g}") for step in range(STEPS_OF_RATES - 1)), high)
    doubled = [low * 2**step for step in range(math.ceil(math.log2(high / low)))]
    return (*doubled, high)


def step_of(load: float, document: Mapping[str, Any]) -> Step:
    """Return what a sweep keeps of a report."""
    requests, energy, cost = document["requests"], document["energy"], document["cost"]
    return Step(
        load=load,
        tokens_per_s=document["output_token_throughput_tps"],
        requests_per_s=document["request_throughput_rps"],
        e2e_mean_ms=document["e2e_latency_ms"]["mean"],
        ttft_p50_ms=document["ttft_ms"]["p50"],
        ttft_p95_ms=document["ttft_ms"]["p95"],
        itl_p50_ms=document["itl_ms"]["p50"],
        itl_p95_ms=document["itl_ms"]["p95"],
        failed_share=requests["failed"] / requests["sent"] if requests["sent"] else 0.0,
        errors=document["errors"],
        limited_by=tuple(document["limited_by"]),
        evidence=tuple(shortage.evidence(document)),
        is_valid=document["valid"],
        joules_per_token=energy["joules_per_output_token"] if energy else None,
        cost_per_million=cost["per_million_output_tokens"] if cost else None,
    )


def curve(what: str, steps: Sequence[Step]) -> Curve:
    """Return the knee and the cliff of a sweep."""
    ordered = tuple(sorted(steps, key=lambda step: step.load))
    powers = {
        step.load: step.tokens_per_s / step.e2e_mean_ms for step in ordered if step.e2e_mean_ms and step.tokens_per_s
    }
    knee = max(powers, key=lambda load: powers[load], default=None)
    return Curve(
        what=what,
        steps=ordered,
        knee=knee,
        is_knee_inside=knee is not None and knee != ordered[-1].load,
        cliff=cliff_of(what, ordered),
    )


def cliff_of(what: str, steps: Sequence[Step]) -> Cliff | None:
    """Return the first step on which something breaks away from a step before it, within a doubling of the load.

    That is: requests fail; throughput falls; the server does not keep up with the rate; or p95 of TTFT or ITL grows
    more than twice as much as the load did.
    """
    for index, bad in enumerate(steps[1:], start=1):
        near = [step for step in steps[:index] if step.load >= bad.load / 2] or [steps[index - 1]]
        for good in near:
            if signs := _signs(what, good, bad):
                last = max((step for step in steps[:index]), key=lambda step: step.load)
                return Cliff(last_good=last.load, first_bad=bad.load, signs=tuple(signs), cause=_cause(good, bad))
    return None


def _signs(what: str, good: Step, bad: Step) -> list[str]:
    found = []
    if bad.failed_share > FAILED_SHARE >= good.failed_share:
        kinds = ", ".join(f"{kind} {count}" for kind, count in bad.errors.items())
        found.append(f"{bad.failed_share:.0%} of the requests fail ({kinds})")
    if bad.tokens_per_s < FALLEN * good.tokens_per_s:
        found.append(f"throughput falls from {good.tokens_per_s:,.0f} to {bad.tokens_per_s:,.0f} tokens/s")
    if what == "rate" and bad.requests_per_s < KEPT_SHARE * bad.load and good.requests_per_s >= KEPT_SHARE * good.load:
        found.append(f"{bad.requests_per_s:.2f} of {bad.load:g} requests/s are answered")
    for name, measure in LATENCIES.items():
        before, after = measure(good), measure(bad)
        if _is_broken(before, after, bad.load / good.load):
            found.append(f"{name} p95 grows from {before:,.0f} to {after:,.0f} ms")
    return found


LATENCIES: Mapping[str, Callable[[Step], float | None]] = {
    "TTFT": lambda step: step.ttft_p95_ms,
    "ITL": lambda step: step.itl_p95_ms,
}


def _is_broken(before: float | None, after: float | None, growth: float) -> bool:
    if not before or after is None:
        return False
    return after > BREAK * growth * before and after - before > LEAST_RISE_MS


def _cause(good: Step, bad: Step) -> str:
    """Return what happened: what the server's metrics name, else what the latencies themselves tell."""
    new = [reason for reason in bad.limited_by if reason not in good.limited_by] or list(bad.limited_by)
    if new:
        return " and ".join(new)
    growth = bad.load / good.load
    waits = _is_broken(good.ttft_p95_ms, bad.ttft_p95_ms, growth)
    slows = _is_broken(good.itl_p95_ms, bad.itl_p95_ms, growth)
    if waits and not slows:
        return "requests wait before they begin, though no metric of the server says where"
    if slows and not waits:
        return "every token takes longer, though no metric of the server says why"
    return "no metric of the server and nothing on the client says why"
