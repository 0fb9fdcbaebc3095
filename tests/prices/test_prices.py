"""Prices are data with dates; a user's file and SkyPilot's catalogue replace them; nothing is converted by guess."""

import pytest

from toolkit import gpus, prices
from toolkit.errors import UnknownName, UsageError

OWN = """
provider = "our rack"
currency = "USD"
[rates]
USD = 1.25
[[offers]]
gpu = "RTX A4500"
per_gpu_hour = 0.50
date = "2026-11"
"""
#: The columns of skypilot-catalog's vms.csv.
SKYPILOT = """\
InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice
2x_L4_SECURE,L4,2,8,48,1.00,DE,,0.40
1x_L4_SECURE,L4,1,8,48,0.60,DE,,
1x_L4_COMMUNITY,L4,1,8,48,0.70,US,,
1x_TPU,tpu-v5e,1,8,48,0.70,US,,
cpu_only,,,8,48,0.10,US,,
"""


@pytest.mark.parametrize("offer", prices.defaults().offers, ids=lambda each: f"{each.provider}-{each.gpu}-{each.kind}")
def test_every_shipped_price_is_of_a_known_card_and_dated(offer):
    assert gpus.get(offer.gpu).name == offer.gpu
    assert offer.kind in prices.KINDS
    assert 0.05 < offer.per_gpu_hour < 15
    assert offer.date
    assert offer.source
    assert prices.defaults().converted(1.0, offer.currency, into="EUR") > 0


def test_the_small_european_clouds_are_in():
    book = prices.defaults()

    assert [(each.provider, each.per_gpu_hour, each.currency) for each in book.of("a4500")] == [("Shadow", 0.35, "EUR")]
    assert [(each.provider, each.per_gpu_hour) for each in book.of("rtx-2000-ada", kinds=("spot",))] == [
        ("Shadow", 0.29)
    ]
    assert ("Hivenet", 0.40) in [(each.provider, each.per_gpu_hour) for each in book.of("rtx-4090")]


def test_spot_and_on_demand_are_kept_apart():
    book = prices.defaults()

    assert {each.kind for each in book.of("h100-sxm")} == {"on-demand"}
    assert book.of("h100-sxm", kinds=("spot",))[0].per_gpu_hour < book.of("h100-sxm")[0].per_gpu_hour
    assert book.of("rtx-2000-ada") == ()


def test_a_users_file_replaces_the_prices_of_its_cards_and_its_rates(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(OWN)

    book = prices.with_file(prices.defaults(), path)

    (found,) = book.of("a4500")
    assert (found.provider, found.per_gpu_hour, found.kind) == ("our rack", 0.50, "on-demand")
    assert book.converted(1.25, "USD", into="EUR") == pytest.approx(1.0)
    assert book.of("l4") == prices.defaults().of("l4")


def test_a_skypilot_catalogue_is_read_by_gpu_region_and_kind(tmp_path):
    path = tmp_path / "vms.csv"
    path.write_text(SKYPILOT)

    book = prices.with_file(prices.defaults(), path)

    assert [(each.per_gpu_hour, each.region) for each in book.of("l4")] == [(0.5, "DE"), (0.7, "US")]
    assert [each.per_gpu_hour for each in book.of("l4", region="us")] == [0.7]
    assert [each.per_gpu_hour for each in book.of("l4", kinds=("spot",))] == [0.2]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[offers]]\nper_gpu_hour = 1", "own.toml has a price of no GPU."),
        ('[[offers]]\ngpu = "a4500"\nper_gpu_hour = -1', "has -1 as the price of 'a4500'"),
        ('[[offers]]\ngpu = "a4500"\nper_gpu_hour = 1\ncurrency = "XYZ"', "no exchange rate for XYZ"),
        ("[rates]\nUSD = 0", "no exchange rate above zero for USD"),
        ("offers = [", "is not TOML"),
        ("offers = 3", "are no tables"),
        ("offers = [1, 2]", "are no tables"),
        ('[[offers]]\ngpu = "a4500"\nper_gpu_hour = inf', "has inf as the price of 'a4500'"),
        ('[[offers]]\ngpu = "a4500"\nper_gpu_hour = nan', "has nan as the price of 'a4500'"),
        ("[rates]\nUSD = nan", "no exchange rate above zero for USD"),
    ],
)
def test_a_price_file_that_cannot_be_meant_is_refused_in_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "own.toml"
    path.write_text(text)

    with pytest.raises(UsageError, match=sentence):
        prices.with_file(prices.defaults(), path)


def test_a_price_file_with_an_unknown_card_names_the_nearest(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('[[offers]]\ngpu = "a4600"\nper_gpu_hour = 1')

    with pytest.raises(UnknownName, match="a4600"):
        prices.with_file(prices.defaults(), path)


def test_a_csv_that_is_no_catalogue_says_what_it_lacks(tmp_path):
    path = tmp_path / "vms.csv"
    path.write_text("gpu,price\nl4,1\n")

    with pytest.raises(UsageError, match="no column AcceleratorName, AcceleratorCount, Price"):
        prices.with_file(prices.defaults(), path)


def test_a_catalogue_that_is_no_text_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "vms.csv"
    path.write_bytes(b"AcceleratorName,AcceleratorCount,Price\n\xff\xfe,1,1\n")
    with pytest.raises(UsageError, match=r"The prices in .*vms\.csv cannot be read"):
        prices.with_file(prices.defaults(), path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("huge.toml", f'[[offers]]\ngpu = "l4"\nper_gpu_hour = 1{"0" * 400}\n'),
        ("long.csv", f'{SKYPILOT}"{"x" * 200_000}",L4,1\n'),
    ],
)
def test_a_price_file_that_no_number_or_table_holds_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)

    with pytest.raises(UsageError, match=name):
        prices.with_file(prices.defaults(), tmp_path / name)


def test_a_row_of_a_catalogue_that_ends_early_is_passed_over(tmp_path):
    (tmp_path / "vms.csv").write_text("Price,AcceleratorCount,AcceleratorName\n0.5,1\n0.4,1,L4\n")

    book = prices.with_file(prices.defaults(), tmp_path / "vms.csv")

    assert [each.per_gpu_hour for each in book.of("l4")] == [0.4]
