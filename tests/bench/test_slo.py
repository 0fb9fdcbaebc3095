import dataclasses

import pytest

from toolkit.bench import price, slo
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


@pytest.mark.parametrize(
    ("text", "per_hour", "currency"), [("0.35EUR/h", 0.35, "EUR"), ("2 usd/hour", 2.0, "USD"), ("1.5€/h", 1.5, "EUR")]
)
def test_prices_are_read(text, per_hour, currency):
    assert price.parse(text) == price.Price(per_hour=per_hour, currency=currency)


def test_a_price_without_a_unit_is_refused():
    with pytest.raises(UsageError, match=r"'0.35' is not an hourly price"):
        price.parse("0.35")


def test_cost_follows_from_throughput():
    """36 EUR/h is a cent a second; 1000 tokens/s make a million in 1000 s: ten euro."""
    assert price.cost(price.parse("36EUR/h"), 1000.0) == {
        "currency": "EUR",
        "per_hour": 36.0,
        "per_million_output_tokens": pytest.approx(10.0),
    }
    assert price.cost(price.parse("36EUR/h"), 0.0)["per_million_output_tokens"] is None
