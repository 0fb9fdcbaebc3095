"""An open loop tells the truth about a server that does not keep up: its clock starts when a request is due."""

import pytest

from toolkit import bench
from toolkit.bench.latency import ttft_ms
from toolkit.specs import LoadProfile, Stage

ENVIRONMENT = {}


def run(url, *, rate, **changes):
    stages = (Stage(start_rps=rate, end_rps=rate),)
    profile = {"url": url, "arrival": "constant", "stages": stages, "osl": 4, "isl": 8}
    return bench.run(LoadProfile(**(profile | changes)))


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_stall_of_the_server_is_seen_by_all_who_would_have_come_meanwhile(serve, scheme):
    served = serve(ttft_s=0.02, gap_s=0.005, stall_at_s=1.0, stall_s=2.0)
    found = run(served.url(scheme), rate=25, requests=100)
    truth, report = served.truth(), bench.summarise(found, ENVIRONMENT).document

    assert report["requests"] == {"sent": 100, "ok": 100, "failed": 0, "cancelled": 0}
    began = min(row["start"] for row in truth.values())
    stalled = [record for record in found.records if 1 <= record.scheduled_s - found.records[0].scheduled_s < 2.9]
    first = min(record.scheduled_s for record in found.records)
    for record in found.records:
        # The server's own clock, from the moment at which the request was due.
        happened_ms = 1000 * (truth[record.request_id]["times"][0] - began - (record.scheduled_s - first))
        assert ttft_ms(record) == pytest.approx(happened_ms, abs=150)
    assert len(stalled) > 40  # half of a hundred requests fall into two of four seconds
    # Two of four seconds are stalled: a quarter waits more than one second; a closed loop of one would say one percent.
    assert report["ttft_ms"]["p50"] < 1200
    assert 1300 < report["ttft_ms"]["p90"] < 2000
    assert 1800 < report["ttft_ms"]["max"] < 2300


def test_without_a_cap_requests_pile_up_and_with_one_they_wait_while_their_clock_runs(serve):
    served = serve(ttft_s=0.4)
    free = run(served.grpc, rate=40, requests=40)
    held = run(served.grpc, rate=40, requests=40, is_capped=True, concurrency=4)

    assert max(ttft_ms(record) for record in free.records) < 800
    assert all(record.held_s == 0 for record in free.records)
    # Four at a time of 0.4 s each: the last of 40 ends after 4 s, though it was due after one.
    assert max(record.end_s for record in held.records) > 3.9
    assert max(ttft_ms(record) for record in held.records) > 2900
    assert max(record.held_s for record in held.records) > 2.4
    document = bench.summarise(held, ENVIRONMENT).document
    assert document["send_lag_ms"]["p99"] < 500  # waiting for room is not the client being late


def test_a_duration_ends_the_sending_and_not_the_answers(serve):
    served = serve(ttft_s=0.3)
    found = run(served.http, rate=20, duration_s=1.0)
    assert {record.outcome for record in found.records} == {"ok"}
    assert len(found.records) == 19  # due at 0.05 s, 0.10 s, ..., 0.95 s
    assert found.duration_s > 1.2


def test_a_client_that_cannot_keep_the_rate_makes_the_run_invalid(serve):
    served = serve()
    found = run(served.http, rate=20_000, requests=4_000)
    document = bench.summarise(found, ENVIRONMENT).document
    assert document["valid"] is False
    assert any(
        "of the rate that was asked for" in warning or "sent late" in warning for warning in document["warnings"]
    )
