"""The search for the highest load: it lands near the limit in few runs, whatever the curve, and knows its noise."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.bench.search import MOST_RUNS, Search, Tried, certainty, independent, wilson


def searched(excess_at, *, first=8.0, lowest=1.0, highest=4096.0, is_whole=True):
    search = Search(first=first, lowest=lowest, highest=highest, is_whole=is_whole)
    while (load := search.next()) is not None:
        excess = excess_at(load)
        search.take(Tried(load=load, is_met=excess <= 1, excess=excess, certainty=1 if excess <= 1 else -1))
    return search.result()


CURVES = {
    "straight": lambda load, limit: load / limit,
    "steep": lambda load, limit: (load / limit) ** 6,
    "queue": lambda load, limit: 0.5 / max(1 - load / (2 * limit), 1e-9) if load < 2 * limit else math.inf,
    "cliff": lambda load, limit: 0.2 if load <= limit else math.inf,
    "step": lambda load, limit: 0.2 if load <= limit else 50.0,
}


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("limit", [3, 7, 10, 33, 64, 100, 250])
def test_it_lands_within_five_percent_in_eight_runs(curve, limit):
    found = searched(lambda load: CURVES[curve](load, limit), first=32.0 if limit == 250 else 8.0)
    assert len(found.tried) <= MOST_RUNS
    assert found.is_bracketed
    assert found.best == limit or limit / found.best <= 1.06
    assert found.low == found.best


@pytest.mark.parametrize("curve", CURVES)
def test_rates_need_not_be_whole(curve):
    found = searched(lambda load: CURVES[curve](load, 23.7), first=20.0, lowest=0.1, is_whole=False)
    assert 23.7 / 1.06 <= found.best <= 23.7


@settings(max_examples=200)
@given(st.floats(0.5, 3000), st.sampled_from(sorted(CURVES)), st.floats(1, 64))
def test_it_never_says_a_load_that_missed_and_never_tries_one_twice(limit, curve, first):
    found = searched(lambda load: CURVES[curve](load, limit), first=round(first))
    loads = [one.load for one in found.tried]
    assert len(loads) == len(set(loads)) <= MOST_RUNS
    assert all(load == round(load) and 1 <= load <= 4096 for load in loads)
    if found.best is None:
        assert limit < 1 or min(loads) > limit
    else:
        assert found.best <= limit


def test_what_misses_at_the_lowest_load_is_said_to():
    found = searched(lambda _: 3.0)
    assert (found.best, found.is_bracketed, found.tried[-1].load) == (None, True, 1)


def test_what_never_misses_is_not_bracketed():
    found = searched(lambda _: 0.1, highest=100.0)
    assert (found.best, found.is_bracketed) == (100.0, False)


def test_wilsons_interval_is_the_published_one():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_certainty_needs_requests():
    assert certainty(97, 100, 0.95) == 0  # by chance, perhaps
    assert certainty(9_700, 10_000, 0.95) == 1
    assert certainty(9_000, 10_000, 0.95) == -1
    dice = random.Random(0)
    wrong = sum(certainty(sum(dice.random() < 0.95 for _ in range(400)), 400, 0.95) != 0 for _ in range(400))
    assert wrong < 0.09 * 400


def test_values_that_come_in_tens_are_worth_a_tenth():
    dice = random.Random(1)
    alone = [dice.random() for _ in range(4000)]
    in_tens = [value for value in alone[:400] for _ in range(10)]
    assert independent(alone) == pytest.approx(4000, rel=0.5)
    assert independent(in_tens) == pytest.approx(400, rel=0.5)
    assert independent([1.0] * 50) == 50
    assert independent([]) == 0


def test_what_an_overloaded_server_answers_is_the_next_guess():
    search = Search(first=1.0, lowest=0.1, highest=1000.0, is_whole=False)
    for load in (1.0, 4.0, 16.0):
        assert search.next() == load
        search.take(Tried(load=load, is_met=True, excess=0.1, certainty=1))
    assert search.next() == 64.0
    search.take(Tried(load=64.0, is_met=False, excess=20.0, certainty=-1, answered=50.0))
    assert search.next() == 49.0


def test_a_whole_number_between_two_that_were_tried_is_not_passed_over():
    search = Search(first=8.0, lowest=1.0, highest=100.0, is_whole=True)
    search.take(Tried(load=8.0, is_met=True, excess=0.1, certainty=1))
    search.take(Tried(load=10.0, is_met=False, excess=1.01, certainty=0))
    assert search.next() == 9.0
