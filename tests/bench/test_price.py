"""What a run costs: prices are read, tokens and requests counted, and the input pays for the time that it takes."""

import dataclasses

import pytest

from tests.bench.test_summary import request, run
from toolkit.bench import price
from toolkit.bench.summary import summarise
from toolkit.errors import UsageError
from toolkit.specs import LoadProfile, TraceRow


@pytest.mark.parametrize(
    ("text", "per_hour", "currency"), [("0.35EUR/h", 0.35, "EUR"), ("2 usd/hour", 2.0, "USD"), ("1.5€/h", 1.5, "EUR")]
)
def test_prices_are_read(text, per_hour, currency):
    assert price.parse(text) == price.Price(per_hour=per_hour, currency=currency)


@pytest.mark.parametrize(("text", "said"), [("0.35", "'0.35' is not an hourly price"), ("0EUR/h", "'0EUR/h' is none")])
def test_what_is_no_price_is_refused(text, said):
    with pytest.raises(UsageError, match=said):
        price.parse(text)


RATES = {"input_tokens": 4000.0, "output_tokens": 1000.0, "requests": 10.0}


def profile(**changes):
    return LoadProfile(url="grpc://x", requests=1, **changes)


def test_cost_follows_from_the_rates():
    """36 EUR/h is a cent a second, in which 1000 tokens are made of 4000, by ten requests."""
    assert price.cost(profile(price="36EUR/h"), RATES, None) == {
        "currency": "EUR",
        "per_hour": 36.0,
        "source": "given by the user",
        "input_time_share": None,
        "per_million_tokens": pytest.approx(2.0),
        "per_million_output_tokens": pytest.approx(10.0),
        "input_apart_per_million": None,
        "output_apart_per_million": None,
        "tokens_per_unit": pytest.approx(500_000),
        "output_tokens_per_unit": pytest.approx(100_000),
        "per_thousand_requests": pytest.approx(1.0),
        "requests_per_hour": pytest.approx(36_000),
        "utilization": None,
        "at_utilization": None,
    }
    assert price.cost(profile(), RATES, None) is None


def test_input_and_output_apart_pay_for_the_whole_together():
    found = price.cost(profile(price="36EUR/h"), RATES, 0.25)
    assert (found["input_apart_per_million"], found["output_apart_per_million"]) == (
        pytest.approx(0.25 * 0.01 / 4000 * 1e6),
        pytest.approx(0.75 * 0.01 / 1000 * 1e6),
    )
    paid = 4000e-6 * found["input_apart_per_million"] + 1000e-6 * found["output_apart_per_million"]
    assert paid == pytest.approx(0.01)


def test_a_server_that_is_busy_for_a_quarter_of_the_time_costs_four_times_as_much_a_token():
    found = price.cost(profile(price="36EUR/h", utilization=0.25), RATES, 0.5)
    idle = found["at_utilization"]
    for name in ("per_million_tokens", "per_million_output_tokens", "input_apart_per_million", "per_thousand_requests"):
        assert idle[name] == pytest.approx(4 * found[name])
    for name in ("tokens_per_unit", "output_tokens_per_unit", "requests_per_hour"):
        assert idle[name] == pytest.approx(found[name] / 4)


def test_nothing_made_has_no_price():
    found = price.cost(profile(price="36EUR/h"), dict.fromkeys(RATES, 0.0), None)
    assert (found["per_million_output_tokens"], found["per_thousand_requests"]) == (None, None)
    assert found["requests_per_hour"] == 0


def test_the_input_pays_for_the_time_that_it_takes_alone():
    two = {"input_tokens": 100, "output_tokens": 2}
    alone = run(
        dataclasses.replace(request(0.0), first_token_s=0.06, last_token_s=0.07, **two),
        dataclasses.replace(request(0.0), first_token_s=0.05, last_token_s=0.06, **two),
        dataclasses.replace(request(0.0, outcome="failed"), first_token_s=0.001),
    )
    per_token = price.input_s_per_token(alone)
    assert per_token == pytest.approx((0.05 - 0.01) / 100)
    # Three requests of 20 tokens over four seconds.
    loaded = run(request(0.0), request(0.5), request(1.0), input_s_per_token=per_token)
    document = summarise(
        dataclasses.replace(loaded, profile=dataclasses.replace(loaded.profile, price="36EUR/h")), {}
    ).document
    assert document["cost"]["input_time_share"] == pytest.approx(60 * 0.0004 / 4)


def test_an_input_that_alone_would_take_longer_than_the_run_has_no_share():
    assert price.input_time_share(run(request(0.0), input_s_per_token=1.0), [request(0.0)]) is None
    assert price.input_time_share(run(request(0.0)), [request(0.0)]) is None


def test_lone_requests_are_like_the_others_but_alone_and_unknown_to_the_cache():
    asked = profile(
        concurrency=32, isl=512, isl_lengths="normal:512,9", osl=300, shared_prefix=0.5, cancel_share=0.1, seed=3
    )
    alone = price.lone(asked)
    assert (alone.concurrency, alone.requests, alone.osl, alone.isl_lengths) == (1, 3, 2, "normal:512,9")
    assert (alone.shared_prefix, alone.cancel_share, alone.warmup_requests) == (0.0, 0.0, 1)
    assert alone.seed != asked.seed
    rows = tuple(TraceRow(due_s=None, input_tokens=tokens, output_tokens=9) for tokens in (100, 300))
    replayed = price.lone(profile(trace=rows, arrival="trace", prompts=("a", "b", "c", "d")))
    assert (replayed.isl, replayed.trace, replayed.arrival, replayed.prompts) == (200, (), "closed", ("b", "c", "d"))
