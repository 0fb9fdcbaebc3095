"""Several client processes are one load: one plan, one clock, one set of records, however they end."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from toolkit import bench
from toolkit.bench.client import processes_for
from toolkit.bench.latency import ttft_ms
from toolkit.bench.runs import Outcome
from toolkit.bench.tickets import Tickets
from toolkit.errors import UsageError
from toolkit.specs import LoadProfile, RequestRecord, Stage


def run(url, **changes):
    profile = {"url": url, "concurrency": 5, "requests": 40, "osl": 8, "isl": 8, "processes": 2}
    return bench.run(LoadProfile(**(profile | changes)))


def children():
    """Return the processes that this one started and that still live, but for Python's own tracker."""
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in found if Path(f"/proc/{pid}/cmdline").exists()]
    return [line for line in lines if b"spawn_main" in line and b"resource_tracker" not in line]


@pytest.mark.parametrize("scheme", ["grpc", "http", "openai+http"])
def test_requests_are_those_of_one_process_and_none_is_sent_twice(serve, scheme):
    served = serve(ttft_s=0.02, gap_s=0.005, is_asked_logged=True)
    changes = {"model": ""} if scheme == "openai+http" else {}
    found = run(served.url(scheme), seed=1, **changes)
    asked = {name: row["asked"] for name, row in served.truth().items()}
    alone = run(served.url(scheme), seed=1, processes=1, **changes)
    assert sorted(record.request_id for record in found.records) == sorted(f"1-{number}" for number in range(40))
    assert {record.outcome for record in found.records} == {"ok"}
    assert asked == {name: row["asked"] for name, row in served.truth().items()}
    assert (found.client_processes, alone.client_processes) == (2, 1)
    assert found.mean_in_flight == pytest.approx(5, rel=0.2)
    assert children() == []


def test_all_count_from_one_moment_of_one_clock(serve):
    served = serve(ttft_s=0.1)
    stages = (Stage(start_rps=40, end_rps=40),)
    found = run(served.grpc, arrival="constant", stages=stages, requests=60, processes=3)
    due = sorted(record.scheduled_s for record in found.records)
    assert due == pytest.approx([number / 40 for number in range(1, 61)])
    for record in found.records:
        first = served.truth()[record.request_id]["times"][0] - found.clock_at_start - record.scheduled_s
        assert ttft_ms(record) == pytest.approx(1000 * first, abs=60)
    assert found.duration_s == pytest.approx(1.6, abs=0.5)


def test_conversations_are_shared_out_whole(serve):
    found = run(serve(ttft_s=0.01).http, turns="3", requests=30)
    names = sorted({record.request_id.split(".")[0] for record in found.records}, key=lambda name: int(name[2:]))
    turns = {name: sorted(r.turn for r in found.records if r.request_id.split(".")[0] == name) for name in names}
    assert names == [f"0-{number}" for number in range(len(names))]
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in turns.values())
    assert len(found.records) == 30


def test_a_server_that_dies_ends_all_of_them_and_their_records_are_kept(serve):
    started = time.monotonic()
    found = run(serve(die_at_request=9, gap_s=0.002).grpc, requests=100_000)
    assert time.monotonic() - started < 30
    assert found.stop_reason.startswith("The server at grpc://")
    assert sum(record.outcome == "ok" for record in found.records) >= 4
    assert {record.error for record in found.records} <= {None, "stream_broken", "connection_refused"}
    assert children() == []


def test_ctrl_c_keeps_what_was_measured_by_all(serve):
    served = serve(ttft_s=0.05, gap_s=0.01)

    def interrupt():
        while len(served.truth()) < 16:  # of which some may not have reached the client
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    found = run(served.grpc, requests=100_000)
    outcomes = [record.outcome for record in found.records]
    assert (found.is_interrupted, outcomes.count("failed")) == (True, 0)
    assert 1 <= outcomes.count("cancelled") <= 5  # some may have been between two requests
    assert outcomes.count("ok") >= 8
    assert children() == []


def test_a_process_that_is_killed_ends_the_run_and_is_named(serve):
    served, killed = serve(ttft_s=0.05), []

    def kill():
        while len(served.truth()) < 8:
            time.sleep(0.05)
        listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        killed.extend(int(pid) for pid in listed if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(killed[-1], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    found = run(served.grpc, requests=100_000)
    assert found.stop_reason == "Client process 2 of 2 ended with exit code -9; its requests are missing."
    assert {record.outcome for record in found.records} == {"ok"}
    assert bench.summarise(found, {}).document["valid"] is False


def test_nobody_goes_on_for_a_parent_that_is_gone(serve):
    trtk = [sys.executable, "-c", "from toolkit.cli import main; main()"]
    options = ["--url", serve(ttft_s=0.05).grpc, "--duration", "60", "--warmup", "0", "--processes", "2"]
    parent = subprocess.Popen([*trtk, "bench", *options], stderr=subprocess.PIPE, text=True)
    assert "load test" in parent.stderr.readline()
    listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert len(listed) >= 2
    parent.kill()
    # Ends with the last process that has the pipe; Python's tracker says what it clears away.
    _, said = parent.communicate(timeout=30)
    assert "Traceback" not in said


def test_progress_is_that_of_all(serve):
    seen = []
    profile = LoadProfile(url=serve(ttft_s=0.05, gap_s=0.02).grpc, concurrency=4, requests=24, osl=16, processes=2)
    bench.run(profile, watch=seen.append)
    assert (seen[-1].completed, seen[-1].in_flight, seen[-1].output_tokens, seen[-1].done) == (24, 0, 384, 24.0)
    assert max(one.in_flight for one in seen) == 4


def test_a_cap_on_what_is_in_flight_is_for_one_process():
    stages = (Stage(start_rps=9, end_rps=9),)
    with pytest.raises(UsageError, match="2 client processes cannot count together what is in flight"):
        run("grpc://localhost:1", arrival="poisson", stages=stages, is_capped=True)


def warm(*, cpu_s, duration_s=1.0, requests=10):
    record = RequestRecord(
        request_id="1", scheduled_s=0, sent_s=0, first_token_s=0, last_token_s=0, end_s=0, input_tokens=1,
        output_tokens=1, first_chunk_tokens=1, chunks=1, outcome="ok",
    )  # fmt: skip
    records = (record,) * requests
    return Outcome(records=records, duration_s=duration_s, busy_s=1, clock_at_start=0, cpu_s=cpu_s)


@pytest.mark.parametrize(
    ("changes", "outcome", "count"),
    [
        ({"concurrency": 64}, warm(cpu_s=0.2), 1),
        ({"concurrency": 64}, warm(cpu_s=0.9), 2),
        ({"concurrency": 1}, warm(cpu_s=0.9), 1),
        ({"concurrency": 64}, None, 1),
        ({"concurrency": 64, "url": "grpc://localhost:8001"}, warm(cpu_s=0.9), None),
        ({"arrival": "poisson", "stages": (Stage(start_rps=1, end_rps=10),)}, warm(cpu_s=0.2), 1),
        ({"arrival": "poisson", "stages": (Stage(start_rps=1, end_rps=40),)}, warm(cpu_s=0.2), 2),
        ({"arrival": "poisson", "stages": (Stage(start_rps=1, end_rps=40),), "is_capped": True}, warm(cpu_s=0.2), 1),
        ({"concurrency": 3, "processes": 8}, None, 3),
    ],
)
def test_so_many_processes_are_used_as_the_warm_up_shows_are_needed(changes, outcome, count, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(2)))
    profile = LoadProfile(**({"url": "grpc://elsewhere:8001", "requests": 1, "processes": 0} | changes))
    assert processes_for(profile, outcome) == (count or 1)


def test_tickets_are_handed_out_once_each():
    tickets = Tickets(3)
    assert [tickets.take() for _ in range(5)] == [0, 1, 2, None, None]
    assert tickets.is_out
    endless = Tickets()
    assert [endless.take() for _ in range(5)] == list(itertools.islice(itertools.count(), 5))
    assert not endless.is_out
