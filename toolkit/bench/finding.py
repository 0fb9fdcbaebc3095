"""Runs in search of a limit: the search says the load, a run says how it went."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from toolkit.bench import slo, stability
from toolkit.bench.runs import Run
from toolkit.bench.search import Found, Search, Tried, certainty, independent
from toolkit.errors import ServerError, UsageError
from toolkit.specs import LoadProfile, Stage

CONCURRENCY, RATE = "concurrency", "rate"
MOST_IN_FLIGHT = 4096
MOST_RPS = 10_000.0
FEWEST_RPS = 0.01
#: A run has so many requests for each in flight: a percentile of few requests says little.
REQUESTS_PER_SLOT = 10
FEWEST_REQUESTS = 100
MOST_WARMUP = 32
#: Seconds at a rate, where no length is given.
RATE_RUN_S = 20.0

RunOnce = Callable[[LoadProfile], Run]


def find(profile: LoadProfile, what: str, run_once: RunOnce, *, on_run: Callable[[LoadProfile, Run], None]) -> Found:
    """Run loads until the highest that meets the profile's objectives is known; ON_RUN is told of each run."""
    objectives = [slo.parse(text) for text in profile.slos]
    if not objectives:
        raise UsageError("A search needs an objective.", hint="Add --slo ttft=500ms@p95, or --slo chat.")
    search = Search(
        first=float(profile.concurrency) if what == CONCURRENCY else _first_rate(profile),
        lowest=1.0 if what == CONCURRENCY else FEWEST_RPS,
        highest=MOST_IN_FLIGHT if what == CONCURRENCY else MOST_RPS,
        is_whole=what == CONCURRENCY,
    )
    while (load := search.next()) is not None:
        asked = at(profile, what, load)
        try:
            run = run_once(asked)
        except ServerError:
            if search.is_fresh:
                raise
            break  # what is known is worth more than the error, which run_once may keep
        on_run(asked, run)
        search.take(judged(load, objectives, run))
        if run.is_interrupted:
            break
    return search.result()


def _first_rate(profile: LoadProfile) -> float:
    return profile.stages[0].start_rps if profile.stages else 1.0


def at(
    profile: LoadProfile, what: str, load: float, *, per_slot: int = REQUESTS_PER_SLOT, fewest: int = FEWEST_REQUESTS
) -> LoadProfile:
    """Return the profile of one run: new prompts each time, or the prefix cache would know them."""
    seed = profile.seed + round(1000 * load) + 1
    if what == RATE:
        length_s = profile.duration_s or RATE_RUN_S
        arrival = profile.arrival if profile.stages else "poisson"
        stage = Stage(start_rps=load, end_rps=load)
        requests = None if load * length_s >= fewest else fewest
        return replace(
            profile,
            seed=seed,
            arrival=arrival,
            stages=(stage,),
            requests=requests,
            duration_s=None if requests else length_s,
        )
    slots = int(load)
    requests = None if profile.duration_s else max(per_slot * slots, fewest)
    warmup = min(slots, MOST_WARMUP) if profile.warmup_requests else 0
    return replace(profile, seed=seed, concurrency=slots, requests=requests, warmup_requests=warmup)


def with_headroom(load: float | None, what: str) -> float | None:
    """Return the load to plan with, by the rule that a fifth of the limit is kept free for what is not the average."""
    if load is None:
        return None
    kept = slo.HEADROOM_SHARE * load
    return float(max(math.floor(kept + 1e-9), 1)) if what == CONCURRENCY else float(f"{kept:.3g}")


def load_of(profile: LoadProfile, what: str) -> float:
    """Return the load of a run that `at` made."""
    return float(profile.concurrency) if what == CONCURRENCY else profile.stages[0].start_rps


def judged(load: float, objectives: list[slo.Slo], run: Run) -> Tried:
    """Return how a run went: by the objective that it met least."""
    rows = slo.verdicts(objectives, run.records)
    ended = sorted((r for r in run.records if r.outcome != "cancelled"), key=lambda record: record.scheduled_s)
    sure = []
    for objective, row in zip(objectives, rows, strict=True):
        worth = independent([objective.overshoot(record) for record in ended])
        sure.append(certainty(row["attained_share"] * worth, worth, row["percentile"] / 100))
    excess = max(_excess(row) for row in rows)
    growth = stability.growth_rps(run)
    if growth is not None:  # a longer run would have missed
        answered = max(load - growth, FEWEST_RPS)
        return Tried(load=load, is_met=False, excess=max(excess, load / answered), certainty=-1.0, answered=answered)
    is_met = all(row["verdict"] == "met" for row in rows) and not run.stop_reason
    return Tried(load=load, is_met=is_met, excess=excess, certainty=min(sure))


def _excess(row: dict[str, Any]) -> float:
    return math.inf if row["measured_ms"] is None else float(row["measured_ms"] / row["target_ms"])
