import json

import pytest

from toolkit.bench import definitions
from toolkit.bench.runs import Run
from toolkit.bench.summary import steady_throughput, summarise, tokens_between
from toolkit.specs import LoadProfile, RequestRecord

PROFILE = LoadProfile(
    url="grpc://here:8001", concurrency=2, requests=4, osl=11, slos=("ttft=150ms@p50",), price="36EUR/h"
)


def request(start: float, *, ttft: float = 0.1, **changes) -> RequestRecord:
    """Eleven tokens, one a tenth of a second after the first; the end 50 ms after the last."""
    values = {
        "request_id": f"r{start}",
        "scheduled_s": start,
        "sent_s": start + 0.001,
        "first_token_s": start + ttft,
        "last_token_s": start + ttft + 1.0,
        "end_s": start + ttft + 1.05,
        "input_tokens": 20,
        "output_tokens": 11,
        "first_chunk_tokens": 1,
        "chunks": 11,
        "outcome": "ok",
    }
    return RequestRecord(**(values | changes))


FAILED = request(
    2.0,
    first_token_s=None,
    last_token_s=None,
    end_s=2.5,
    output_tokens=0,
    outcome="failed",
    error="timeout",
    message="No",
)


def run(*records: RequestRecord, **changes) -> Run:
    busy = sum(record.end_s - record.scheduled_s for record in records)
    values = {
        "profile": PROFILE,
        "records": records,
        "started_at": "2026-01-01T00:00:00.000+00:00",
        "duration_s": 4.0,
        "mean_in_flight": busy / 4.0,
        "client_cpu_s": 0.4,
        "server": {"name": "triton", "models": None},
    }
    return Run(**(values | changes))


def same(value: float) -> dict:
    return dict.fromkeys(("mean", "min", "max", "p50", "p90", "p95", "p99"), pytest.approx(value)) | {
        "std": pytest.approx(0, abs=1e-9)
    }


def test_the_whole_document_of_a_known_run():
    document = summarise(run(request(0.0), request(0.5), request(1.5, ttft=0.2), FAILED), {"os": "test"}).document
    assert document == {
        "schema_version": 1,
        "tool_version": "0.1.0",
        "started_at": "2026-01-01T00:00:00.000+00:00",
        "interrupted": False,
        "profile": {
            "url": "grpc://here:8001",
            "model": "ensemble",
            "endpoint": "chat",
            "concurrency": 2,
            "requests": 4,
            "duration_s": None,
            "isl": 128,
            "osl": 11,
            "is_streaming": True,
            "is_eos_ignored": True,
            "warmup_requests": 0,
            "prompts": 0,
            "timeout_s": 120.0,
            "seed": 0,
            "metrics_url": "",
            "isl_lengths": "",
            "osl_lengths": "",
            "shared_prefix": 0.0,
            "cancel_share": 0.0,
            "trace": 0,
            "arrival": "closed",
            "stages": [],
            "burstiness": 1.0,
            "is_capped": False,
            "ramp_s": 0.0,
            "slos": ["ttft=150ms@p50"],
            "price": "36EUR/h",
            "price_source": "",
            "utilization": None,
            "tokenizer": "",
            "turns": "",
            "think_s": "",
            "processes": 1,
        },
        "environment": {"os": "test"},
        "server_metrics": {"url": "", "problem": "", "samples": [], "peak": {}, "counts": None, "gpus": []},
        "energy": None,
        "backlog_growth_rps": None,
        "limited_by": [],
        "server": {"name": "triton", "models": None},
        "client": {"cpu_s": 0.4, "cpu_share": 0.1, "processes": 1},
        "duration_s": 4.0,
        "mean_in_flight": pytest.approx((1.15 + 1.15 + 1.25 + 0.5) / 4),
        "requests": {"sent": 4, "ok": 3, "failed": 1, "cancelled": 0},
        "errors": {"timeout": 1},
        "input_tokens": 60,
        "output_tokens": 33,
        "token_count_source": "server",
        "request_throughput_rps": 0.75,
        "output_token_throughput_tps": 8.25,
        # From 0.501, when both slots were in use, to the last good send at 1.501: the first request's tokens at 0.6 to
        # 1.1 (5.99 of 10) and the second's first at 0.6 and 9.01 of 10 after it.
        "steady_output_token_throughput_tps": pytest.approx(5.99 + 1 + 9.01),
        "total_token_throughput_tps": 23.25,
        "ttft_ms": {
            "mean": pytest.approx(400 / 3),
            "min": pytest.approx(100),
            "max": pytest.approx(200),
            "std": pytest.approx(47.14045),
            "p50": pytest.approx(100),
            "p90": pytest.approx(180),
            "p95": pytest.approx(190),
            "p99": pytest.approx(198),
        },
        "itl_ms": same(100),
        "tpot_ms": same(105),
        "e2e_latency_ms": {
            "mean": pytest.approx(1150 + 100 / 3),
            "min": pytest.approx(1150),
            "max": pytest.approx(1250),
            "std": pytest.approx(47.14045),
            "p50": pytest.approx(1150),
            "p90": pytest.approx(1230),
            "p95": pytest.approx(1240),
            "p99": pytest.approx(1248),
        },
        "send_lag_ms": same(1),
        "latency_with_failures": {
            "ttft_ms": {"p50": pytest.approx(150), "p90": None, "p95": None, "p99": None},
            "e2e_latency_ms": {"p50": pytest.approx(1200), "p90": None, "p95": None, "p99": None},
        },
        "turns": [],
        "goodput_rps": 0.5,
        "slo": [
            {
                "name": "ttft",
                "target_ms": 150.0,
                "percentile": 50.0,
                "measured_ms": pytest.approx(150),
                "attained_share": 0.5,
                "verdict": "met",
            }
        ],
        "cost": {
            "currency": "EUR",
            "per_hour": 36.0,
            "source": "given by the user",
            "input_time_share": None,
            "per_million_tokens": pytest.approx(0.01 / 23.25 * 1e6),
            "per_million_output_tokens": pytest.approx(0.01 / 8.25 * 1e6),
            "input_apart_per_million": None,
            "output_apart_per_million": None,
            "tokens_per_unit": pytest.approx(2325),
            "output_tokens_per_unit": pytest.approx(825),
            "per_thousand_requests": pytest.approx(0.01 / 0.75 * 1000),
            "requests_per_hour": pytest.approx(2700),
            "utilization": None,
            "at_utilization": None,
        },
        "definitions": definitions.document(),
        "percentile_method": definitions.PERCENTILE_METHOD,
        "valid": False,
        "warnings": ["1 of 4 requests failed, the first with: No"],
    }
    assert json.loads(json.dumps(document, allow_nan=False))


def test_every_number_of_the_report_is_defined():
    document = summarise(run(request(0.0)), {}).document
    circumstances = {"schema_version", "tool_version", "started_at", "interrupted", "profile", "environment"}
    said_elsewhere = {"token_count_source", "definitions", "percentile_method", "warnings"}
    assert set(document) - circumstances - said_elsewhere == set(definitions.DEFINITIONS)


@pytest.mark.parametrize(
    ("changes", "records", "is_valid", "warning"),
    [
        ({}, [request(0.0)], True, None),
        ({"is_interrupted": True}, [request(0.0)], False, "The run was interrupted after 4.0 s."),
        ({"stop_reason": "The server died."}, [request(0.0)], False, "The server died."),
        ({}, [request(0.0, sent_s=0.08)], False, "The client sent late: p99 of the send lag is 80 ms, over 50 ms."),
        ({}, [request(0.0, outcome="cancelled")], False, "No request succeeded."),
        (
            {"mean_in_flight": 1.0},
            [request(0.0)],
            True,
            "Little's law does not hold: throughput x latency is 0.29 requests, but 1.00 were in flight.",
        ),
        (
            {},
            [request(0.0, output_tokens=9)],
            True,
            "1 of 1 answers are not as long as asked: the mean is 9.0 tokens where 11 were asked for.",
        ),
        (
            {},
            [request(0.0, token_count_source="chunks")],
            True,
            "The server does not count output tokens: every response with text counts as one token.",
        ),
        (
            {"is_input_counted": False},
            [request(0.0)],
            True,
            "The server does not count input tokens: they are what was asked for, not what was tokenized.",
        ),
        (
            {"client_cpu_s": 3.8},
            [request(0.0)],
            True,
            "The load tester used 95% of a core: it may be what limits the throughput; --processes 2 uses more "
            "of them.",
        ),
    ],
)
def test_numbers_that_cannot_be_trusted_say_why(changes, records, is_valid, warning):
    document = summarise(run(*records, **changes), {}).document
    assert (document["valid"], document["warnings"]) == (is_valid, [warning] if warning else [])


def test_without_objectives_and_price_nothing_is_judged():
    profile = LoadProfile(url="grpc://here", requests=1, osl=11)
    document = summarise(run(request(0.0), profile=profile), {}).document
    assert (document["slo"], document["goodput_rps"], document["cost"]) == ([], None, None)


def test_tokens_of_a_request_are_all_somewhere():
    one = request(0.0, output_tokens=14, first_chunk_tokens=4)
    assert [tokens_between(one, start, start + 0.5) for start in (0.0, 0.5, 1.0)] == pytest.approx([8, 5, 1])


def test_a_run_of_one_request_per_slot_has_no_steady_window():
    assert steady_throughput([request(0.0), request(0.1)], 2) is None
