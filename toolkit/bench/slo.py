"""Service level objectives: `ttft=500ms@p95` read, and judged with failed requests counted as bad."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.bench.latency import LATENCIES, percentile
from toolkit.errors import UsageError
from toolkit.specs import RequestRecord

PATTERN = re.compile(r"(ttft|itl|tpot|e2e)\s*=\s*([0-9]*\.?[0-9]+)\s*(ms|s)\s*(?:@\s*p([0-9]{1,2}(?:\.[0-9]+)?))?")
METRICS = {"ttft": "ttft_ms", "itl": "itl_ms", "tpot": "tpot_ms", "e2e": "e2e_latency_ms"}
DEFAULT_PERCENTILE = 95.0
#: A server is loaded with so much of what it can take: the rest is for what is not the average.
HEADROOM_SHARE = 0.8
#: The preset that is about such a load: p95 within 1.5 s at 80 % of the concurrency.
HEADROOM = "80-percent"
#: Objectives with a name. MLPerf's are those of its server and interactive scenarios (mlperf.conf of v5.1, p99);
#: chat, rag and agent are what people feel: when an answer begins, and that it runs faster than it is read.
PRESETS = {
    "chat": ("ttft=500ms@p95", "tpot=30ms@p95"),
    "rag": ("ttft=2s@p95", "tpot=50ms@p95"),
    "agent": ("ttft=1s@p95", "e2e=10s@p95"),
    "reasoning": ("ttft=1.5s@p95", "tpot=15ms@p95"),
    "80-percent": ("e2e=1.5s@p95",),
    "mlperf-llama2-70b": ("ttft=2s@p99", "tpot=200ms@p99"),
    "mlperf-llama2-70b-interactive": ("ttft=450ms@p99", "tpot=40ms@p99"),
    "mlperf-llama3.1-8b": ("ttft=2s@p99", "tpot=100ms@p99"),
    "mlperf-llama3.1-8b-interactive": ("ttft=500ms@p99", "tpot=30ms@p99"),
    "mlperf-llama3.1-405b": ("ttft=6s@p99", "tpot=175ms@p99"),
    "mlperf-llama3.1-405b-interactive": ("ttft=4.5s@p99", "tpot=80ms@p99"),
    "mlperf-mixtral-8x7b": ("ttft=2s@p99", "tpot=200ms@p99"),
    "mlperf-deepseek-r1": ("ttft=2s@p99", "tpot=80ms@p99"),
    "mlperf-deepseek-r1-interactive": ("ttft=1.5s@p99", "tpot=15ms@p99"),
    "mlperf-gpt-oss-120b": ("ttft=3s@p99", "tpot=80ms@p99"),
    "mlperf-gpt-oss-120b-interactive": ("ttft=2s@p99", "tpot=15ms@p99"),
}


@dataclass(frozen=True, kw_only=True)
class Slo:
    """At least `percentile` percent of the requests stay at or under the target."""

    name: str
    target_ms: float
    percentile: float

    def is_met_by(self, record: RequestRecord) -> bool:
        """Whether one request is good; an answer of one token has no gaps that could be too long."""
        if record.outcome != "ok":
            return False
        value = LATENCIES[METRICS[self.name]](record)
        return value is None or value <= self.target_ms

    def overshoot(self, record: RequestRecord) -> float:
        """Return measured over target, at most two: what is further over it is bad all the same."""
        value = LATENCIES[METRICS[self.name]](record) if record.outcome == "ok" else math.inf
        return 0.0 if value is None else min(value / self.target_ms, 2.0)


def expanded(texts: Sequence[str]) -> tuple[str, ...]:
    """Return objectives with every preset's name replaced by what it stands for."""
    return tuple(one for text in texts for one in PRESETS.get(text.strip().lower(), (text,)))


def parse(text: str) -> Slo:
    """Read one objective.

    >>> parse("e2e=1.5s@p99")
    Slo(name='e2e', target_ms=1500.0, percentile=99.0)
    """
    found = PATTERN.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(
            f"{text!r} is not an objective.",
            hint="Write --slo ttft=500ms@p95, with ttft, itl, tpot or e2e and ms or s, or a preset: "
            f"{', '.join(PRESETS)}.",
        )
    name, number, unit, share = found.groups()
    if float(number) <= 0:
        raise UsageError(f"{text!r} can be met by nobody.", hint="Give a target above zero: --slo ttft=500ms@p95.")
    return Slo(
        name=name,
        target_ms=float(number) * (1000 if unit == "s" else 1),
        percentile=float(share) if share else DEFAULT_PERCENTILE,
    )


def verdicts(objectives: Sequence[Slo], records: Sequence[RequestRecord]) -> list[dict[str, Any]]:
    """Judge each objective over the requests that were not cancelled."""
    ended = [record for record in records if record.outcome != "cancelled"]
    return [_verdict(objective, ended) for objective in objectives]


def good_requests(objectives: Sequence[Slo], records: Sequence[RequestRecord]) -> int:
    """Count the requests that meet every objective."""
    return sum(all(objective.is_met_by(record) for objective in objectives) for record in records)


def _verdict(objective: Slo, ended: Sequence[RequestRecord]) -> dict[str, Any]:
    good = sum(objective.is_met_by(record) for record in ended)
    latency = LATENCIES[METRICS[objective.name]]
    values = sorted(
        value for record in ended if (value := latency(record) if record.outcome == "ok" else math.inf) is not None
    )
    measured = percentile(values, objective.percentile) if values else math.inf
    share = good / len(ended) if ended else 0.0
    return {
        "name": objective.name,
        "target_ms": objective.target_ms,
        "percentile": objective.percentile,
        "measured_ms": measured if math.isfinite(measured) else None,
        "attained_share": share,
        "verdict": "met" if 100 * share >= objective.percentile - 1e-9 else "missed",
    }
