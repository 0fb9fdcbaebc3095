"""Runs against a scripted Triton in a process of its own, whose log is the truth."""

import os
import signal
import socket
import statistics
import threading
import time

import pytest

from toolkit import bench
from toolkit.bench.latency import itl_ms, tpot_ms, ttft_ms
from toolkit.errors import ServerError, UnknownName, UsageError
from toolkit.specs import LoadProfile

SCHEMES = ("grpc", "http")


def run(url: str, **changes) -> bench.Run:
    return bench.run(LoadProfile(**({"url": url, "concurrency": 4, "requests": 16, "osl": 16} | changes)))


def outcomes(found: bench.Run) -> dict:
    return {record.request_id: (record.outcome, record.error, record.message) for record in found.records}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("tokens_per_chunk", [1, 4])
def test_latencies_are_what_the_server_did(serve, scheme, tokens_per_chunk):
    served = serve(ttft_s=0.05, gap_s=0.01, tokens_per_chunk=tokens_per_chunk)
    found = run(served.url(scheme), warmup_requests=4, osl=32)
    truth = served.truth()
    late, gap_errors = [], []
    for record in found.records:
        times = truth[record.request_id]["times"]
        gap_ms = 1000 * (times[-1] - times[0]) / (32 - tokens_per_chunk)
        late.append(ttft_ms(record) - 1000 * (times[0] - truth[record.request_id]["start"]))
        gap_errors.append(abs(itl_ms(record) - gap_ms))
        assert tpot_ms(record) >= itl_ms(record)
        assert (record.output_tokens, record.first_chunk_tokens, record.chunks) == (
            32,
            tokens_per_chunk,
            32 // tokens_per_chunk,
        )
    assert len(found.records) == 16
    assert min(late) > 0
    assert statistics.median(late) < 60  # a busy machine; what is exact is in test_ground_truth.py
    assert statistics.median(gap_errors) < 0.5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_counts_per_response_are_summed_and_half_characters_are_tokens(serve, scheme):
    served = serve(counts="each", tokens_per_chunk=3, leading_empty_chunks=2)
    records = run(served.url(scheme), requests=4).records
    # Two tokens without text, then 3, 3, 3, 3 and 2: the first text makes it five.
    assert [(r.output_tokens, r.first_chunk_tokens, r.chunks, r.token_count_source) for r in records] == [
        (16, 5, 5, "server")
    ] * 4


def test_a_server_that_does_not_count_is_counted_by_chunks(serve):
    found = run(serve(counts="none", tokens_per_chunk=2).grpc, requests=2, concurrency=1)
    assert [(r.output_tokens, r.token_count_source) for r in found.records] == [(8, "chunks")] * 2
    assert found.is_input_counted is False
    assert {record.input_tokens for record in found.records} == {128}


@pytest.mark.parametrize(("scheme", "is_decoupled"), [("grpc", False), ("grpc", True), ("http", True)])
def test_whole_answers_have_one_chunk_and_no_gaps(serve, scheme, is_decoupled):
    served = serve(ttft_s=0.02, tokens_per_chunk=16, is_decoupled=is_decoupled)
    records = run(served.url(scheme), is_streaming=False, requests=4).records
    assert [(r.outcome, r.output_tokens, r.chunks, itl_ms(r)) for r in records] == [("ok", 16, 1, None)] * 4
    assert min(ttft_ms(record) for record in records) > 20


@pytest.mark.parametrize("scheme", SCHEMES)
def test_so_many_requests_are_in_flight_and_the_server_says_the_same(serve, scheme):
    found = run(serve(ttft_s=0.02, gap_s=0.005).url(scheme), warmup_requests=3, requests=40)
    assert found.mean_in_flight == pytest.approx(4, rel=0.1)
    assert found.server["models"]["ensemble"]["requests"] == 40
    assert found.server["models"]["ensemble"]["queue_s"] == pytest.approx(0.04)


def test_a_duration_ends_the_sending_and_what_is_in_flight_is_finished(serve):
    found = run(serve(ttft_s=0.1, gap_s=0.001).grpc, requests=None, duration_s=0.5)
    assert {record.outcome for record in found.records} == {"ok"}
    # A busy machine takes its time between the last look at the clock and the send; one more would come 0.1 s later.
    assert max(record.sent_s for record in found.records) < 0.55
    assert 0.5 < found.duration_s < 1.0


def test_a_server_that_fails_everything_is_left_alone_after_twenty(serve):
    found = run(serve(fail_every=1).grpc, concurrency=2, requests=1000)
    assert 20 <= len(found.records) <= 22
    assert found.stop_reason == "20 requests in a row failed, the last with: CUDA out of memory"


def test_a_warm_up_that_nobody_answers_is_an_error(serve):
    with pytest.raises(ServerError, match=r"No warm-up request to ensemble at .*: CUDA out of memory"):
        run(serve(fail_every=1).http, warmup_requests=2)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_is_not_there_is_said_in_a_sentence(scheme):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ServerError, match=f"No Triton server answers at {url}") as caught:
            run(url)
    assert "trtk serve" in caught.value.hint


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_unknown_model_gets_the_names_that_the_server_has(serve, scheme):
    with pytest.raises(UnknownName) as caught:
        run(serve().url(scheme), model="ensembel")
    assert caught.value.nearest == ["ensemble"]


def test_an_interrupt_keeps_what_was_measured_and_marks_the_rest_cancelled(serve):
    served = serve(ttft_s=0.05, gap_s=0.01)

    def interrupt():
        while len(served.truth()) < 8:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    found = run(served.grpc, requests=10_000)
    counts = bench.summarise(found, {}).document["requests"]
    assert (found.is_interrupted, counts["failed"]) == (True, 0)
    assert 1 <= counts["cancelled"] <= 4  # some may have been between two requests
    assert counts["ok"] >= 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "localhost"}, "'localhost' is not a URL"),
        ({"url": "grpc://host:99999"}, "is not a URL"),
        ({"requests": None}, "stops after a number of requests or after a duration"),
        ({"url": "ftp://host"}, "There is no protocol named 'ftp'"),
        ({"arrival": "cloesd"}, "There is no load shape named 'cloesd'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(changes, message):
    with pytest.raises(UsageError, match=message):
        run(**({"url": "grpc://localhost:1"} | changes))


def test_snapshots_and_progress_say_how_far_the_run_is(serve):
    seen, steps = [], []
    profile = LoadProfile(url=serve(ttft_s=0.02, gap_s=0.01).grpc, concurrency=2, requests=8, osl=8, warmup_requests=2)
    bench.run(profile, watch=seen.append, on_progress=lambda *step: steps.append(step))
    assert (seen[-1].step, seen[-1].completed, seen[-1].in_flight, seen[-1].output_tokens) == ("load test", 8, 0, 64)
    assert seen[-1].ttft_p50_ms > 20
    assert (steps[-1], {step for step, _, _ in steps}) == (("load test", 8.0, 8.0), {"warm-up", "load test"})


@pytest.mark.parametrize("scheme", SCHEMES)
def test_prompts_longer_than_a_flow_control_window_arrive(serve, scheme):
    found = run(serve().url(scheme), requests=4, isl=60_000)
    assert {record.outcome for record in found.records} == {"ok"}


def test_the_http_port_given_as_grpc_is_said_so(serve):
    url = serve().http.replace("http", "grpc")
    with pytest.raises(ServerError, match=r"No Triton server answers at grpc://.*: "):
        run(url)
