import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.bench import latency
from toolkit.specs import RequestRecord


def record(**changes) -> RequestRecord:
    """Due at 1.0 s, sent 2 ms late, first text at 1.5 s, 10 tokens of which 4 in the first chunk, last at 2.1 s."""
    values = {
        "request_id": "r",
        "scheduled_s": 1.0,
        "sent_s": 1.002,
        "first_token_s": 1.5,
        "last_token_s": 2.1,
        "end_s": 2.16,
        "input_tokens": 7,
        "output_tokens": 10,
        "first_chunk_tokens": 4,
        "chunks": 3,
        "outcome": "ok",
    }
    return RequestRecord(**(values | changes))


def test_each_latency_is_what_its_definition_says():
    measured = {name: measure(record()) for name, measure in latency.LATENCIES.items()}
    assert measured == pytest.approx(
        {"ttft_ms": 500.0, "itl_ms": 100.0, "tpot_ms": 110.0, "e2e_latency_ms": 1160.0, "send_lag_ms": 2.0}
    )


def test_an_answer_in_one_chunk_has_no_gaps():
    one = record(output_tokens=4, chunks=1, last_token_s=1.5)
    assert (latency.itl_ms(one), latency.tpot_ms(one)) == (None, None)


def test_a_request_without_text_has_no_ttft():
    assert latency.ttft_ms(record(first_token_s=None, last_token_s=None)) is None


@given(st.lists(st.floats(0, 1e6), min_size=2), st.integers(1, 99))
def test_percentiles_are_those_of_the_inclusive_method(values, share):
    """The standard library interpolates the same way."""
    truth = statistics.quantiles(values, n=100, method="inclusive")[share - 1]
    assert latency.percentile(sorted(values), share) == pytest.approx(truth, rel=1e-9, abs=1e-9)


def test_distribution_of_known_values():
    assert latency.distribution([3.0, 1.0, 2.0, 4.0]) == pytest.approx(
        {"mean": 2.5, "min": 1.0, "max": 4.0, "std": math.sqrt(1.25), "p50": 2.5, "p90": 3.7, "p95": 3.85, "p99": 3.97}
    )


def test_nothing_measured_is_null_not_zero():
    assert set(latency.distribution([]).values()) == {None}


def test_failures_stand_in_the_percentiles_as_endless_latencies():
    found = latency.percentiles_with_failures([10.0] * 92, failures=8)
    assert found == {"p50": 10.0, "p90": 10.0, "p95": None, "p99": None}
