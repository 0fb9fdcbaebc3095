"""Open loops: the times at which requests are due follow the rate, whatever it does."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit import bench
from toolkit.bench import pacing
from toolkit.errors import UsageError
from toolkit.specs import LoadProfile, Stage


def due(arrival, stages, *, seed=0, burstiness=1.0, most=100_000):
    profile = LoadProfile(url="grpc://x", arrival=arrival, stages=stages, seed=seed, burstiness=burstiness)
    return list(itertools.islice(bench.known_arrivals()[arrival].due_times(profile), most))


def test_a_constant_rate_is_evenly_spaced():
    assert due("constant", (Stage(start_rps=20, end_rps=20),), most=5) == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25])


def test_a_ramp_reaches_each_count_when_the_integral_of_the_rate_does():
    # From 0 to 10 a second in 10 s: t seconds in, t * t / 2 requests are due.
    times = due("constant", (Stage(start_rps=0, end_rps=10, duration_s=10),))
    assert times == pytest.approx([math.sqrt(2 * count) for count in range(1, 51)])


def test_steps_follow_one_another_and_then_it_ends():
    stages = pacing.parse("2,4", duration_s=2)
    assert stages == (Stage(start_rps=2, end_rps=2, duration_s=1), Stage(start_rps=4, end_rps=4, duration_s=1))
    assert due("constant", stages) == pytest.approx([0.5, 1.0, 1.25, 1.5, 1.75, 2.0])


@settings(max_examples=30)
@given(
    st.sampled_from(["constant", "poisson", "gamma"]),
    st.lists(st.tuples(st.floats(1, 200), st.floats(1, 200), st.floats(0.5, 20)), min_size=1, max_size=4),
    st.integers(0, 1000),
)
def test_times_are_sorted_inside_the_stages_and_as_many_as_the_rate_says(arrival, rates, seed):
    stages = tuple(Stage(start_rps=a, end_rps=b, duration_s=s) for a, b, s in rates)
    times = due(arrival, stages, seed=seed, burstiness=0.5)
    expected = sum((stage.start_rps + stage.end_rps) / 2 * stage.duration_s for stage in stages)
    assert times == sorted(times)
    assert all(0 <= time <= sum(stage.duration_s for stage in stages) * (1 + 1e-9) for time in times)
    assert abs(len(times) - expected) <= 1.001 if arrival == "constant" else 6 * math.sqrt(expected) + 2


@pytest.mark.parametrize(
    ("arrival", "burstiness", "expected"), [("poisson", 1, 1), ("gamma", 0.25, 0.25), ("gamma", 2, 2)]
)
def test_gaps_vary_as_much_as_they_are_said_to(arrival, burstiness, expected):
    times = due(arrival, (Stage(start_rps=10, end_rps=10),), burstiness=burstiness, most=20_000)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert mean == pytest.approx(0.1, rel=0.05)
    assert deviation / mean == pytest.approx(expected, rel=0.06)


def test_one_seed_fixes_every_time():
    stages = (Stage(start_rps=10, end_rps=10, duration_s=5),)
    assert due("poisson", stages, seed=3) == due("poisson", stages, seed=3) != due("poisson", stages, seed=4)


@pytest.mark.parametrize("text", ["0", "-1", "x", "5..", "1,,2", "nan", "inf", ""])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(UsageError, match="is no rate"):
        pacing.parse(text, duration_s=10)


@pytest.mark.parametrize("text", ["5..50", "5,10"])
def test_ramps_and_steps_need_a_length(text):
    with pytest.raises(UsageError, match=f"--rate {text} needs a length."):
        pacing.parse(text, duration_s=None)
