"""What GPUs cost: dated defaults in TOML files, a file of the user's own, or a catalogue of SkyPilot."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import gpus
from toolkit.errors import UnknownName, UsageError
from toolkit.registry import toml_document
from toolkit.specs import PriceOffer

FOLDER = Path(__file__).parent
EXCHANGE = FOLDER / "exchange.toml"
ON_DEMAND, SPOT = "on-demand", "spot"
KINDS = (ON_DEMAND, SPOT)
#: Above any price or rate, and a number that a float still holds.
MOST = 1e9
#: Regions that a sentence names.
MOST_NAMED = 20
#: The columns of https://github.com/skypilot-org/skypilot-catalog that are read.
SKYPILOT_COLUMNS = ("AcceleratorName", "AcceleratorCount", "Price")


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Offers, and what one euro is in each currency that they may be in."""

    offers: tuple[PriceOffer, ...]
    rates: Mapping[str, float]
    rates_date: str

    def converted(self, amount: float, currency: str, *, into: str) -> float:
        """Return an amount in another currency; raises UsageError for one without a rate."""
        return amount / self._rate(currency) * self._rate(into)

    def need_region(self, region: str) -> None:
        """Raise UsageError for a region, or a part of its name, that no offer is in."""
        known = sorted({offer.region for offer in self.offers if offer.region})
        if not any(region.lower() in name.lower() for name in known):
            raise UsageError(
                f"No offer is in a region {region!r}; there are {', '.join(known[:MOST_NAMED])}.",
                hint="--prices takes a SkyPilot catalogue CSV with more.",
            )

    def of(self, gpu: str, *, kinds: Iterable[str] = (ON_DEMAND,), region: str = "") -> tuple[PriceOffer, ...]:
        """Return the offers of a GPU, cheapest first."""
        wanted = set(kinds)
        found = [
            offer
            for offer in self.offers
            if offer.gpu == gpu and offer.kind in wanted and region.lower() in offer.region.lower()
        ]
        return tuple(sorted(found, key=lambda each: self.converted(each.per_gpu_hour, each.currency, into="EUR")))

    def _rate(self, currency: str) -> float:
        if currency not in self.rates:
            known = ", ".join(sorted(self.rates))
            raise UsageError(
                f"There is no exchange rate for {currency}; there are {known}.",
                hint=f"Add `{currency} = …` below [rates] in a file for --prices, in {currency} for one euro.",
            )
        return self.rates[currency]


@functools.cache
def defaults() -> Prices:
    """Return the dated prices that come with trtk."""
    exchange = _toml(EXCHANGE)
    files = sorted(path for path in FOLDER.glob("*.toml") if path != EXCHANGE)
    offers = tuple(offer for path in files for offer in _offers(_toml(path), path))
    return Prices(offers=offers, rates=exchange["rates"], rates_date=exchange["date"])


def with_file(prices: Prices, path: Path) -> Prices:
    """Return the prices with those of a user's file in place of the same GPUs' others."""
    if not path.is_file():
        raise UsageError(
            f"There is no price file {path}.", hint="--prices takes a TOML file or a SkyPilot catalogue CSV."
        )
    if path.suffix == ".csv":
        offers, rates = _skypilot(path), {}
    else:
        document = _toml(path)
        offers, rates = _offers(document, path), _rates(document, path)
    named = {offer.gpu for offer in offers}
    kept = tuple(offer for offer in prices.offers if offer.gpu not in named)
    made = Prices(offers=(*offers, *kept), rates={**prices.rates, **rates}, rates_date=prices.rates_date)
    for offer in offers:
        made.converted(0, offer.currency, into="EUR")
    return made


def _toml(path: Path) -> dict[str, Any]:
    try:
        return toml_document(path)
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}.", hint="toolkit/prices has examples.") from error


def _rates(document: Mapping[str, Any], path: Path) -> dict[str, float]:
    rates = document.get("rates", {})
    for currency, rate in rates.items() if isinstance(rates, dict) else [("rates", rates)]:
        if not _is_amount(rate):
            raise UsageError(f"{path} has no exchange rate above zero for {currency}.", hint="Write USD = 1.16.")
    return dict(rates)


def _offers(document: Mapping[str, Any], path: Path) -> tuple[PriceOffer, ...]:
    rows = document.get("offers", ())
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"The offers of {path} are no tables.", hint='Write [[offers]] with gpu = "l4" below it.')
    common = {name: str(document.get(name, "")) for name in ("provider", "currency", "region", "date", "source")}
    return tuple(_offer({**common, **row}, path) for row in rows)


def _is_amount(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 < value < MOST


def _offer(row: Mapping[str, Any], path: Path) -> PriceOffer:
    price, kind = row.get("per_gpu_hour"), row.get("kind", ON_DEMAND)
    if not _is_amount(price):
        raise UsageError(
            f"{path} has {price!r} as the price of {row.get('gpu')!r}.", hint="Write per_gpu_hour = 0.35, above zero."
        )
    if kind not in KINDS:
        raise UnknownName("kind of price", str(kind), KINDS)
    return PriceOffer(
        gpu=_card(row, path),
        provider=str(row["provider"]) or path.stem,
        kind=str(kind),
        per_gpu_hour=float(price or 0),
        currency=str(row["currency"]).upper() or "EUR",
        region=str(row["region"]),
        date=str(row["date"]),
        source=str(row["source"]),
    )


def _card(row: Mapping[str, Any], path: Path) -> str:
    if not row.get("gpu"):
        raise UsageError(f"{path} has a price of no GPU.", hint='Write gpu = "l4" below [[offers]].')
    return gpus.get(str(row["gpu"])).name


def _skypilot(path: Path) -> tuple[PriceOffer, ...]:
    """Return the cheapest offer of each GPU, kind and region; cards that trtk does not know are passed over."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        return tuple(_cheapest(csv.DictReader(lines), path).values())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"The prices in {path} cannot be read: {error}.", hint="Give a CSV in UTF-8.") from error


def _cheapest(reader: csv.DictReader[str], path: Path) -> dict[tuple[str, str, str], PriceOffer]:
    missing = [name for name in SKYPILOT_COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise UsageError(
            f"{path} has no column {', '.join(missing)}, so it is no SkyPilot catalogue.",
            hint="Take vms.csv of a provider in https://github.com/skypilot-org/skypilot-catalog.",
        )
    found: dict[tuple[str, str, str], PriceOffer] = {}
    for row in reader:
        for offer in _of_instance(row, path):
            key = (offer.gpu, offer.kind, offer.region)
            if key not in found or offer.per_gpu_hour < found[key].per_gpu_hour:
                found[key] = offer
    return found


def _of_instance(row: Mapping[str, str], path: Path) -> Iterable[PriceOffer]:
    try:
        gpu, count = gpus.get(row["AcceleratorName"] or "").name, float(row["AcceleratorCount"] or 0)
    except (UnknownName, ValueError):
        return
    for column, kind in (("Price", ON_DEMAND), ("SpotPrice", SPOT)):
        try:
            price = float(row.get(column) or 0)
        except ValueError:
            continue
        if _is_amount(price) and _is_amount(count):
            yield PriceOffer(
                gpu=gpu,
                provider=path.parent.name or path.stem,
                kind=kind,
                per_gpu_hour=price / count,
                currency="USD",
                region=row.get("Region") or "",
                source=path.name,
            )
