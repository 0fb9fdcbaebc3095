"""What a plan costs: whole hours paid, idle ones too, and the extras of real bills."""

import pytest

from toolkit.errors import UsageError
from toolkit.plan.cost import cost
from toolkit.specs import Range


def test_a_bill_is_counted_by_hour_month_and_million_tokens():
    found = cost(0.35, 2, currency="EUR", output_tps=Range(low=500, mid=1000, high=2000), duty=0.5)

    assert found.per_hour == pytest.approx(0.70)
    assert found.per_month == pytest.approx(511)
    assert found.per_month_with_extras == Range(
        low=pytest.approx(664.3), mid=pytest.approx(715.4), high=pytest.approx(766.5)
    )
    assert found.per_million_output_tokens.mid == pytest.approx(0.70 / 3.6)
    assert found.per_million_output_tokens.low == pytest.approx(0.35 / 3.6)
    assert found.per_million_output_tokens.high == pytest.approx(1.40 / 3.6)
    assert found.per_million_at_duty.mid == pytest.approx(2 * 0.70 / 3.6)


@pytest.mark.parametrize("price", [0.0, -1.0])
def test_a_price_that_is_none_is_refused(price):
    with pytest.raises(UsageError, match="is none"):
        cost(price, 1, currency="EUR")


@pytest.mark.parametrize("duty", [0.0, 1.5, -0.1])
def test_a_duty_cycle_is_a_share_of_the_time(duty):
    with pytest.raises(UsageError, match="no share of the time"):
        cost(1.0, 1, currency="EUR", duty=duty)
