"""A sweep finds the knee and the cliff of servers whose curve is known, and says what happened there."""

import pytest

from toolkit.bench import sweeping
from toolkit.bench.sweeping import Step, curve
from toolkit.errors import UsageError

LOADS = (1, 2, 4, 8, 16, 32, 64)


def step(load, **changes):
    values = {
        "load": float(load), "tokens_per_s": 100.0 * load, "requests_per_s": float(load), "e2e_mean_ms": 1000.0,
        "ttft_p50_ms": 50.0, "ttft_p95_ms": 60.0, "itl_p50_ms": 10.0, "itl_p95_ms": 12.0, "failed_share": 0.0,
        "errors": {}, "limited_by": (), "evidence": (), "is_valid": True,
    }  # fmt: skip
    return Step(**(values | changes))


def queued(load, places, *, told=()):
    """A server with so many places, each of which takes a second for a request of 100 tokens, after 50 ms."""
    in_work = min(load, places)
    wait_ms = 1000.0 * max(load - places, 0) / places
    return step(
        load, tokens_per_s=100.0 * in_work, requests_per_s=float(in_work), e2e_mean_ms=1000.0 + wait_ms,
        ttft_p50_ms=50 + wait_ms, ttft_p95_ms=60 + wait_ms, limited_by=told if load > places else (),
    )  # fmt: skip


@pytest.mark.parametrize("places", [4, 16, 32])
def test_the_knee_is_where_all_places_are_taken_and_the_cliff_behind_it(places):
    found = curve("concurrency", [queued(load, places, told=("requests queue in the server",)) for load in LOADS])
    assert (found.knee, found.is_knee_inside) == (places, True)
    assert (found.cliff.last_good, found.cliff.first_bad) == (places, 2 * places)
    assert found.cliff.signs == (f"TTFT p95 grows from 60 to {1060:,} ms",)
    assert found.cliff.cause == "requests queue in the server"


def test_the_knee_of_a_smooth_curve_is_where_half_of_one_more_goes_into_latency():
    """Throughput 8 N / (8 + N) and, by Little's law, latency 8 + N over 8: their ratio is highest at eight."""
    found = curve(
        "concurrency",
        [step(load, tokens_per_s=8 * load / (8 + load), e2e_mean_ms=125.0 * (8 + load)) for load in LOADS],
    )
    assert found.knee == 8


def test_a_curve_that_only_grows_has_neither():
    found = curve("concurrency", [queued(load, 1000) for load in LOADS])
    assert (found.knee, found.is_knee_inside, found.cliff) == (64, False, None)


def test_latency_that_grows_with_the_load_is_no_cliff():
    """Prefill waits for prefill: twice the load, twice the wait, is what every server does."""
    for loads in (LOADS, (1, 3, 9, 27)):
        assert sweeping.cliff_of("concurrency", [step(load, ttft_p95_ms=30.0 * load) for load in loads]) is None


def test_a_cliff_is_found_in_small_steps_as_well():
    loads = (10, 11, 12, 13, 14, 15)
    waits = (50, 50, 80, 130, 210, 330)
    found = sweeping.cliff_of("rate", [step(load, ttft_p95_ms=float(w)) for load, w in zip(loads, waits, strict=True)])
    assert (found.last_good, found.first_bad) == (12, 13)


@pytest.mark.parametrize(
    ("what", "bad", "sign"),
    [
        ("concurrency", {"failed_share": 0.25, "errors": {"timeout": 4}}, "25% of the requests fail (timeout 4)"),
        ("concurrency", {"tokens_per_s": 80.0}, "throughput falls from 400 to 80 tokens/s"),
        ("concurrency", {"itl_p95_ms": 60.0}, "ITL p95 grows from 12 to 60 ms"),
        ("rate", {"requests_per_s": 6.0}, "6.00 of 8 requests/s are answered"),
    ],
)
def test_each_sign_of_a_cliff_is_said(what, bad, sign):
    found = sweeping.cliff_of(what, [step(2), step(4), step(8, **bad)])
    assert (found.last_good, found.first_bad, found.signs) == (4, 8, (sign,))


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        ({"ttft_p95_ms": 900.0, "limited_by": ("b", "a")}, "b"),
        ({"ttft_p95_ms": 900.0, "limited_by": ("a",)}, "a"),
        ({"ttft_p95_ms": 900.0}, "requests wait before they begin, though no metric of the server says where"),
        ({"itl_p95_ms": 900.0}, "every token takes longer, though no metric of the server says why"),
        ({"ttft_p95_ms": 900.0, "itl_p95_ms": 900.0}, "no metric of the server and nothing on the client says why"),
    ],
)
def test_the_cause_is_what_the_metrics_name_else_what_the_latencies_tell(bad, cause):
    good = step(4, limited_by=("a",) if "limited_by" in bad else ())
    assert sweeping.cliff_of("concurrency", [good, step(8, **bad)]).cause == cause


def test_nothing_that_succeeded_has_no_knee():
    found = curve("rate", [step(load, tokens_per_s=0.0, e2e_mean_ms=None, ttft_p95_ms=None) for load in (1, 2)])
    assert (found.knee, found.is_knee_inside) == (None, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("concurrency=1..64", ("concurrency", (1, 2, 4, 8, 16, 32, 64))),
        ("concurrency=3..20", ("concurrency", (3, 6, 12, 20))),
        (" Concurrency = 8,1,32 ", ("concurrency", (1, 8, 32))),
        ("rate=1..64", ("rate", (1, 2, 4, 8, 16, 32, 64))),
        ("rate=0.5,2.25", ("rate", (0.5, 2.25))),
    ],
)
def test_sweeps_are_read(text, expected):
    assert sweeping.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "concurrency", "concurrency=8", "concurrency=0..8", "concurrency=8..1", "concurrency=1.5,2", "rate=..4",
     "rate=1,,2", "isl=1..8", "concurrency=1..2..3", "rate=0,1", "concurrency=1..99999999999",
     "concurrency=" + ",".join(map(str, range(1, 18)))],
)  # fmt: skip
def test_what_is_no_sweep_is_refused(text):
    with pytest.raises(UsageError):
        sweeping.parse(text)
