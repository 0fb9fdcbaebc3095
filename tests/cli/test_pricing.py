"""`--price` of `trtk bench`: an hourly price, or a GPU whose cheapest dated offer it is."""

import pytest

from toolkit.cli import pricing
from toolkit.errors import UsageError


def test_a_price_is_taken_as_it_is():
    assert pricing.fields_of("0.35EUR/h", 0.4) == {"price": "0.35EUR/h", "utilization": 0.4}
    assert pricing.fields_of(None, None) == {}


def test_a_gpu_has_the_cheapest_dated_price_that_is_known():
    from toolkit import prices

    cheapest = prices.defaults().of("l4")[0]
    found = pricing.fields_of("L4", None)
    assert found["price"] == f"{cheapest.per_gpu_hour:g}{cheapest.currency}/h"
    assert found["price_source"] == f"l4 at {cheapest.provider}, on demand, {cheapest.date}"
    twice = pricing.fields_of("l4*2", None)
    assert twice["price"] == f"{2 * cheapest.per_gpu_hour:g}{cheapest.currency}/h"
    assert twice["price_source"].startswith("2 x l4 at ")


@pytest.mark.parametrize(
    ("price", "utilization", "said"),
    [
        ("cheap", None, "'cheap' is not an hourly price, and no GPU has that name."),
        ("0.35", None, "'0.35' is not an hourly price."),
        ("cpu", None, "No price of cpu is known."),
        ("l4*0", None, "No price of 0 x l4 is known."),
        (None, 0.5, "--utilization without a price changes nothing."),
    ],
)
def test_what_is_no_price_is_refused(price, utilization, said):
    with pytest.raises(UsageError) as caught:
        pricing.fields_of(price, utilization)
    assert str(caught.value) == said
