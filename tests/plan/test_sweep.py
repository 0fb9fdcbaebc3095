"""A server as one thing grows: concurrency, rate, prompts, answers; and where its times break away."""

import dataclasses
import itertools
import math

import pytest

from tests.plan.test_recommend import CHAT, made, predict
from toolkit.errors import UsageError
from toolkit.plan import sweep


def swept(text, load=CHAT, server=None):
    """Return (the server, its edge, points by value)."""
    server = server or made()
    axis = sweep.axis_of(text)
    edge = sweep.edge_of(server, load, axis, predict)
    points = sweep.over(server, load, axis, edge=edge, predict=predict)
    return server, edge, {point.value: point for point in points}


def test_the_cliff_is_where_the_cache_is_full_and_times_break_away():
    cliff = sweep.cliff_of(made())
    _, edge, points = swept(f"concurrency=1..{2 * cliff.concurrency}")

    assert (edge.value, edge.cause, edge.sentence) == (cliff.concurrency, "kv_cache", cliff.sentence)
    assert "further requests wait for a place" in edge.sentence
    before, behind = points[cliff.concurrency], points[2 * cliff.concurrency]
    assert behind.prediction.ttft_ms.mid > 5 * before.prediction.ttft_ms.mid
    assert (before.is_beyond_cliff, points[cliff.concurrency + 1].is_beyond_cliff) == (False, True)


def test_a_rate_breaks_away_where_a_full_server_can_do_no_more():
    server, edge, points = swept("rate=0.5..20")

    full = predict(server.setup, CHAT)
    assert edge.value == pytest.approx(full.output_tps.mid / CHAT.osl)
    assert list(points) == sorted(points)
    assert {point.is_beyond_cliff for rate, point in points.items() if rate <= edge.value} == {False}
    assert {point.is_beyond_cliff for rate, point in points.items() if rate > edge.value} == {True}
    served = [point.prediction.output_tps.mid for rate, point in points.items() if rate < edge.value]
    assert served == pytest.approx([rate * CHAT.osl for rate in points if rate < edge.value])
    assert points[20].prediction.ttft_ms.mid > 10 * points[0.5].prediction.ttft_ms.mid


@pytest.mark.parametrize("name", ["isl", "osl"])
def test_longer_requests_break_away_where_the_cache_holds_fewer_than_are_asked_for(name):
    load = dataclasses.replace(CHAT, concurrency=40)
    server, edge, points = swept(f"{name}=16..8000", load, made(workload=dataclasses.replace(load, isl_max=9000)))

    other = CHAT.osl if name == "isl" else CHAT.isl
    assert edge.cause == "kv_cache"
    assert 40 * (edge.value + other) <= server.setup.kv_capacity_tokens < 40 * (edge.value + 1 + other)
    batches = {value: point.prediction.batch for value, point in points.items()}
    assert batches[edge.value] == pytest.approx(40)
    assert batches[8000] < 20
    assert points[edge.value + 1].is_beyond_cliff


def test_what_never_breaks_away_says_so():
    _, edge, points = swept("isl=16..64", dataclasses.replace(CHAT, concurrency=2))

    assert edge.value is None
    assert edge.sentence == "2 requests run at once up to 64 input tokens."
    assert not any(point.is_beyond_cliff for point in points.values())


@pytest.mark.parametrize(
    "text",
    ["concurrency=9..3", "concurrency=0..3", "isl=1.5..3", "rate=-1..3", "rate=a", "users=1..2", "concurrency",
     "rate=1..inf", "rate=nan..nan"],
)  # fmt: skip
def test_what_is_no_range_gets_a_sentence(text):
    with pytest.raises(UsageError, match=f"--sweep {text} is no range."):
        sweep.axis_of(text)


def test_one_value_is_a_short_curve():
    assert sweep.axis_of("osl=64") == sweep.Axis(name="osl", low=64, high=64)


def test_steps_are_evenly_apart_in_proportion():
    found = sweep.steps(1, 1000, also=(77,))
    ratios = [high / low for low, high in itertools.pairwise(found[8:])]

    assert (found[0], found[-1], 77 in found) == (1, 1000, True)
    assert max(ratios) < math.exp(math.log(1000) / 20)
