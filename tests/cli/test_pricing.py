"""`--price` of `trtk bench`: an hourly price, or a GPU whose cheapest dated offer it is."""

import json

import pytest
from click.testing import CliRunner

from tests.bench.conftest import serve as serve  # noqa: PLC0414 - the fixture
from toolkit.cli import main, pricing
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


def test_a_server_that_fails_is_measured_with_a_price_as_without(serve, tmp_path):
    url = serve(status=503).http
    done = CliRunner().invoke(
        main,
        ["bench", "--url", f"openai+{url}/v1", "--price", "1EUR/h", "--warmup", "0", "--requests", "4", "--concurrency",
         "1", "-o", str(tmp_path), "--json"],
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert done.exit_code == 6
    assert (document["errors"], document["cost"]["input_time_share"]) == ({"overloaded": 4}, None)
    assert document["cost"]["per_million_output_tokens"] is None
