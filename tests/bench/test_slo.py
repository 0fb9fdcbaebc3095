import dataclasses

import pytest

from toolkit.bench import slo
from toolkit.errors import UsageError
from toolkit.specs import RequestRecord


def request(ttft_ms: float, outcome: str = "ok") -> RequestRecord:
    first = ttft_ms / 1000
    return RequestRecord(
        request_id="r",
        scheduled_s=0.0,
        sent_s=0.0,
        first_token_s=first if outcome == "ok" else None,
        last_token_s=first + 0.09,
        end_s=first + 0.1,
        input_tokens=1,
        output_tokens=10,
        first_chunk_tokens=1,
        chunks=10,
        outcome=outcome,
    )


@pytest.mark.parametrize(
    ("text", "name", "target_ms", "percentile"),
    [
        ("ttft=500ms", "ttft", 500.0, 95.0),
        ("itl=0.05s@p99", "itl", 50.0, 99.0),
        (" TPOT = 20 ms @ p99.9 ", "tpot", 20.0, 99.9),
        ("e2e=1.5s@p50", "e2e", 1500.0, 50.0),
    ],
)
def test_objectives_are_read(text, name, target_ms, percentile):
    assert slo.parse(text) == slo.Slo(name=name, target_ms=target_ms, percentile=percentile)


@pytest.mark.parametrize("text", ["", "ttft", "ttft=5", "ttft=-5ms", "latency=5ms", "ttft=5ms@95", "ttft=5ms@p100"])
def test_what_is_no_objective_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="is not an objective") as caught:
        slo.parse(text)
    assert "--slo ttft=500ms@p95" in caught.value.hint


def test_a_failed_request_misses_and_a_cancelled_one_does_not_count():
    records = [request(100)] * 18 + [request(0, "failed"), request(300), request(0, "cancelled")]
    verdicts = slo.verdicts([slo.parse("ttft=200ms@p90"), slo.parse("ttft=200ms@p95")], records)
    assert [(row["attained_share"], row["verdict"]) for row in verdicts] == [(0.9, "met"), (0.9, "missed")]
    # Rank 17.1 of 20 lies between 100 and the 300 ms request.
    assert verdicts[0]["measured_ms"] == pytest.approx(120.0)
    assert verdicts[1]["measured_ms"] is None
    assert slo.good_requests([slo.parse("ttft=200ms"), slo.parse("itl=10.5ms")], records) == 18
    assert slo.good_requests([slo.parse("ttft=200ms"), slo.parse("itl=9ms")], records) == 0


def test_an_answer_of_one_token_meets_an_objective_on_gaps():
    assert slo.parse("itl=1ms").is_met_by(dataclasses.replace(request(1), output_tokens=1))


def test_presets_stand_for_objectives_that_can_be_read():
    assert slo.expanded(["chat", " MLPerf-Llama3.1-8B ", "itl=9ms"]) == (
        "ttft=500ms@p95", "tpot=30ms@p95", "ttft=2s@p99", "tpot=100ms@p99", "itl=9ms",
    )  # fmt: skip
    assert all(slo.parse(text).target_ms > 0 for name in slo.PRESETS for text in slo.expanded([name]))


def test_a_target_of_nothing_is_refused():
    with pytest.raises(UsageError, match="can be met by nobody"):
        slo.parse("ttft=0ms")
