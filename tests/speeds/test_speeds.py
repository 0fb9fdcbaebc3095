"""The constants that trtk ships: in range, and for every card."""

import pytest

from toolkit import gpus, speeds
from toolkit.plan.speed.rates import architecture_of, link_of

CARDS = [gpu for gpu in gpus.catalogue() if not gpu.is_cpu]


def test_every_share_is_below_the_datasheet_and_says_how_sure_it_is():
    for kind in speeds.constants().architectures:
        shares = [kind.bandwidth, kind.kv_bandwidth, kind.attention, *kind.compute.values()]
        assert all(0.2 < share < 1 for share in shares), kind.name
        assert {"bandwidth", "kv_bandwidth", "attention"} <= kind.log_sd.keys()


def test_the_fit_has_its_date_rows_and_errors():
    constants = speeds.constants()
    assert constants.fitted_on >= "2026-11-21"
    assert constants.rows > 600
    assert sum(kind.rows for kind in constants.architectures) == constants.rows
    assert constants.errors["release_one_median"] < 0.06


@pytest.mark.parametrize("gpu", CARDS, ids=lambda gpu: gpu.name)
def test_every_card_has_an_architecture_and_a_link(gpu):
    constants = speeds.constants()
    assert gpu.sm in architecture_of(gpu, constants).sms
    assert link_of(gpu, constants) in constants.links
