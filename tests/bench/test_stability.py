"""A queue that grows is told from one that only sways, and a search for a rate does not take it for an answer."""

import heapq
import math
import random
import statistics

import pytest

from toolkit.bench import finding, slo, stability
from toolkit.bench.runs import Run
from toolkit.specs import LoadProfile, RequestRecord, Stage

PLACES, SERVICE_S = 5, 0.1  # fifty requests a second


def simulated(profile):
    """What an open loop measures of a server with five places: first come, first served."""
    rate, dice = profile.stages[0].start_rps, random.Random(profile.seed)
    free, records, now = [0.0] * PLACES, [], 0.0
    while (profile.duration_s is None or now < profile.duration_s) and len(records) != profile.requests:
        begin = max(now, heapq.heappop(free))
        heapq.heappush(free, begin + SERVICE_S)
        records.append(
            RequestRecord(
                request_id=str(len(records)), scheduled_s=now, sent_s=now, first_token_s=begin + SERVICE_S / 2,
                last_token_s=begin + SERVICE_S, end_s=begin + SERVICE_S, input_tokens=8, output_tokens=8,
                first_chunk_tokens=1, chunks=8, outcome="ok",
            )
        )  # fmt: skip
        now += dice.expovariate(rate) if profile.arrival == "poisson" else 1 / rate
    return Run(
        profile=profile, records=tuple(records), started_at="", duration_s=max(one.end_s for one in records),
    )  # fmt: skip


def loop(rate, *, seed=0, arrival="poisson", duration_s=20.0, **changes):
    return LoadProfile(
        url="grpc://x", arrival=arrival, stages=(Stage(start_rps=rate, end_rps=rate),), duration_s=duration_s,
        seed=seed, slos=("ttft=300ms@p95",), **changes,
    )  # fmt: skip


def test_a_queue_that_grows_is_seen_with_its_pace():
    for seed in range(20):
        assert stability.growth_rps(simulated(loop(60, seed=seed))) == pytest.approx(10, abs=4)


def test_a_server_that_keeps_up_is_not_suspected():
    suspected = [
        stability.growth_rps(simulated(loop(rate, seed=seed))) for rate in (5, 20, 40, 45) for seed in range(25)
    ]
    assert sum(growth is not None for growth in suspected) <= 2


@pytest.mark.parametrize(
    "changes",
    [
        {"arrival": "closed", "stages": ()},
        {"is_capped": True},
        {"turns": "4"},
        {"stages": (Stage(start_rps=10, end_rps=60, duration_s=20),)},
    ],
)
def test_only_an_open_loop_of_one_rate_is_looked_at(changes):
    run = simulated(loop(60))
    other = LoadProfile(
        **{**{name: getattr(run.profile, name) for name in LoadProfile.__dataclass_fields__}, **changes}
    )
    assert stability.growth_rps(Run(profile=other, records=run.records, started_at="", duration_s=20.0)) is None


def test_a_rate_that_is_not_kept_up_with_is_missed_whatever_its_latencies():
    run = simulated(loop(60))
    patient = [slo.parse("ttft=3600s@p95")]
    tried = finding.judged(60.0, patient, run)
    assert (tried.is_met, tried.certainty) == (False, -1.0)
    assert tried.answered == pytest.approx(50, rel=0.1)
    assert finding.judged(30.0, patient, simulated(loop(30))).is_met is True


@pytest.mark.parametrize("first", [1.0, 8.0, 20.0, 49.0, 400.0])
def test_a_search_lands_within_five_percent_of_the_capacity_in_eight_runs(first):
    found = finding.find(loop(first, arrival="constant"), "rate", simulated, on_run=lambda *_: None)
    assert len(found.tried) <= 8
    assert found.best == pytest.approx(50, rel=0.05)


#: Where p95 of the wait in this queue is 0.25 s: bisection over runs of 1500 s.
TRUE_LIMIT = 44.5


def test_the_interval_of_random_arrivals_holds_the_true_limit():
    """Requests of one queue wait alike: counted as independent ones, their interval would be far too narrow."""
    found = [finding.find(loop(20.0, seed=seed), "rate", simulated, on_run=lambda *_: None) for seed in range(10)]
    held = [(one.low or 0.0) <= TRUE_LIMIT <= (one.high or math.inf) for one in found]
    assert sum(held) >= 9
    assert statistics.fmean(one.best for one in found) == pytest.approx(TRUE_LIMIT, rel=0.05)
    assert all(len(one.tried) <= 8 for one in found)
