"""A comparison calls a change what is one, and noise what is noise; other tools' results become the same records."""

import dataclasses
import json
import random

import pytest

from tests.bench.test_stability import loop, simulated
from toolkit.bench import comparing, reading
from toolkit.bench.latency import e2e_latency_ms, itl_ms, send_lag_ms, ttft_ms
from toolkit.errors import UsageError
from toolkit.specs import RequestRecord


def result(*, scale=1.0, seed=0, count=400, failed=0):
    dice, records, now = random.Random(seed), [], 0.0
    for index in range(count):
        ttft, gap = dice.lognormvariate(-3, 0.4) * scale, dice.gauss(0.01, 0.001) * scale
        first = now + ttft
        records.append(
            RequestRecord(
                request_id=str(index),
                scheduled_s=now,
                sent_s=now,
                first_token_s=first,
                last_token_s=first + 31 * gap,
                end_s=first + 31 * gap,
                input_tokens=8,
                output_tokens=32,
                first_chunk_tokens=1,
                chunks=32,
                outcome="failed" if index < failed else "ok",
            )
        )
        now += 0.4 * scale
    return reading.Result(name=str(seed), tool="trtk", duration_s=now, records=tuple(records), document={})


def verdicts(before, after, **more):
    return {change.metric: change.verdict for change in comparing.compare(before, after, **more)}


def test_what_is_slower_by_a_fifth_is_worse_and_the_other_way_round_better():
    slower = verdicts(result(seed=1), result(seed=2, scale=1.2))
    assert slower.pop("ttft_ms p95") in {"worse", "same"}  # the tail of 400 requests is noisy
    assert set(slower.values()) == {"worse"}
    faster = verdicts(result(seed=2, scale=1.2), result(seed=1))
    assert {faster[name] for name in slower} == {"better"}


def test_two_runs_of_the_same_thing_are_the_same():
    false_alarms = sum(
        verdict != "same"
        for seed in range(12)
        for verdict in verdicts(result(seed=2 * seed), result(seed=2 * seed + 1)).values()
    )
    assert false_alarms <= 4  # of 84, at 95 % and beyond 5 % of change


def test_two_runs_of_one_loaded_queue_are_the_same():
    """Its requests wait alike: taken as independent ones, nine of ten such pairs would be called a change."""

    def queued(seed):
        run = simulated(loop(42, seed=seed))
        return reading.Result(
            name=str(seed), tool="trtk", duration_s=run.duration_s, records=run.records,
            document={"profile": {"arrival": "poisson"}},
        )  # fmt: skip

    pairs = [verdicts(queued(2 * seed), queued(2 * seed + 1)) for seed in range(12)]
    assert all("output_token_throughput_tps" not in pair for pair in pairs)  # it is what was asked for
    assert sum(verdict != "same" for pair in pairs for verdict in pair.values()) <= 3  # of 72


def test_the_throughput_of_a_rate_that_is_not_kept_up_with_is_compared():
    kept = dataclasses.replace(result(seed=1), document={"profile": {"arrival": "poisson"}})
    behind = dataclasses.replace(
        result(seed=2, scale=2), document={"profile": {"arrival": "poisson"}, "backlog_growth_rps": 1.5}
    )
    assert verdicts(kept, behind)["output_token_throughput_tps"] == "worse"


def test_a_small_change_is_tolerated_however_sure_it_is():
    assert verdicts(result(seed=1), result(seed=1, scale=1.03))["itl_ms p50"] == "same"
    assert verdicts(result(seed=1), result(seed=1, scale=1.03), tolerated_pct=1)["itl_ms p50"] == "worse"


def test_the_interval_holds_the_true_change():
    changes = {c.metric: c for c in comparing.compare(result(seed=3), result(seed=4, scale=1.5))}
    for name in ("ttft_ms p50", "itl_ms p50", "e2e_latency_ms p50"):
        assert changes[name].low_pct < 50 < changes[name].high_pct
    assert changes["output_token_throughput_tps"].change_pct == pytest.approx(-100 / 3, abs=2)


def test_failures_that_became_more_are_worse():
    assert verdicts(result(seed=1), result(seed=2, failed=40))["failed requests"] == "worse"
    assert "failed requests" not in verdicts(result(seed=1), result(seed=2))


def aiperf_row(index, *, sent, ttft, end, error=None):
    metrics = {
        "time_to_first_token": {"value": ttft},
        "inter_token_latency": {"value": 10.0},
        "output_sequence_length": {"value": 21},
        "input_sequence_length": {"value": 7},
    }
    told = {"benchmark_phase": "profiling", "credit_issued_ns": 10**9 * (index + 1), "was_cancelled": False}
    told |= {"request_start_ns": int(sent * 1e9), "request_end_ns": int(end * 1e9)}
    return {"metadata": told, "metrics": {} if error else metrics, "error": error}


def test_aiperfs_records_keep_its_own_numbers(tmp_path):
    rows = [
        {"metadata": {"benchmark_phase": "warmup", "credit_issued_ns": 0}},
        aiperf_row(0, sent=1.002, ttft=50.0, end=1.252),
        aiperf_row(1, sent=2.0, ttft=0, end=2.5, error={"code": 500}),
    ]
    (tmp_path / "profile_export.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = reading.read(tmp_path)
    first, second = found.records
    assert found.tool == "aiperf"
    assert (ttft_ms(first), send_lag_ms(first)) == (pytest.approx(52), pytest.approx(2))
    assert itl_ms(first) == pytest.approx(10)
    assert (first.output_tokens, first.input_tokens, second.outcome) == (21, 7, "failed")


def test_vllms_and_genai_perfs_files_are_read(tmp_path):
    vllm, genai = tmp_path / "vllm.json", tmp_path / "profile_export.json"
    vllm.write_text(json.dumps({
        "duration": 3.0, "start_times": [100.0, 101.0], "ttfts": [0.5, 0.0], "itls": [[0.1, 0.1], []],
        "input_lens": [9, 9], "output_lens": [3, 0], "errors": ["", "timeout"],
    }))  # fmt: skip
    genai.write_text(json.dumps({"experiments": [{"requests": [
        {"timestamp": 10**9, "response_timestamps": [10**9 + 3 * 10**8, 10**9 + 4 * 10**8]},
        {"timestamp": 2 * 10**9, "response_timestamps": []},
    ]}]}))  # fmt: skip
    (ok, bad), (chunked, empty) = reading.read(vllm).records, reading.read(genai).records
    assert reading.read(vllm).duration_s == 3.0
    assert (ttft_ms(ok), itl_ms(ok), e2e_latency_ms(ok)) == (
        pytest.approx(500), pytest.approx(100), pytest.approx(700)
    )  # fmt: skip
    assert (bad.outcome, empty.outcome) == ("failed", "failed")
    assert (ttft_ms(chunked), chunked.chunks, chunked.token_count_source) == (pytest.approx(300), 2, "chunks")


@pytest.mark.parametrize("content", ["", "{}", "[1, 2]", '{"experiments": []}', "\xff"])
def test_what_is_no_result_is_refused_by_name(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=str(path)):
        reading.read(path)


def test_ranks_drawn_from_beta_are_those_of_drawing_every_request():
    ordered = sorted(ttft_ms(record) for record in result(seed=5, count=120).records)
    dice = random.Random(0)
    plain = sorted(sorted(dice.choices(ordered, k=120))[round(119 * 0.95)] for _ in range(3000))
    short = sorted(comparing.drawn_percentiles(ordered, 95, count=120, seed="x"))
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        expected = plain[int(3000 * share)]
        assert (
            ordered[max(ordered.index(expected) - 2, 0)]
            <= short[int(1000 * share)]
            <= ordered[min(ordered.index(expected) + 2, 119)]
        )


def test_what_has_no_time_between_its_tokens_is_left_out_and_no_ratio():
    wave = [
        dataclasses.replace(
            record, scheduled_s=0.0, sent_s=0.0, first_token_s=1.0, last_token_s=1.0, end_s=1.0, first_chunk_tokens=32
        )
        for record in result(count=8).records
    ]
    one = dataclasses.replace(result(), records=tuple(wave), duration_s=1.0)
    assert verdicts(one, one) == {
        f"{name} p{share}": "same" for name in ("ttft_ms", "e2e_latency_ms") for share in (50, 95)
    }
    at_once = [dataclasses.replace(record, last_token_s=record.first_token_s) for record in result().records]
    assert "itl_ms p50" not in verdicts(dataclasses.replace(result(), records=tuple(at_once)), result())


def test_whole_answers_of_vllm_have_no_gaps(tmp_path):
    file = tmp_path / "whole.json"
    document = {
        "start_times": [1.0, 2.0],
        "ttfts": [0.5, 0.5],
        "itls": [[], []],
        "input_lens": [4, 4],
        "output_lens": [9, 9],
        "duration": 2.0,
    }
    file.write_text(json.dumps(document))
    assert [itl_ms(record) for record in reading.read(file).records] == [None, None]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"schema_version": 9}, "its schema version is 9, known here is 1"),
        ({"schema_version": 1, "duration_s": 1.0, "valid": True}, "profile, warnings"),
    ],
)
def test_a_report_of_another_version_or_without_its_parts_is_refused(tmp_path, document, said):
    (tmp_path / "report.json").write_text(json.dumps(document))
    (tmp_path / "requests.jsonl").write_text("")
    with pytest.raises(UsageError, match=said):
        reading.read(tmp_path)
