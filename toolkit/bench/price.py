"""What the measured throughput costs at an hourly price."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from toolkit.errors import UsageError

PATTERN = re.compile(r"([0-9]*\.?[0-9]+)\s*([A-Za-z]{3}|[$€£])\s*/\s*h(?:our)?")
SIGNS = {"$": "USD", "€": "EUR", "£": "GBP"}


@dataclass(frozen=True, kw_only=True)
class Price:
    """What the server costs."""

    per_hour: float
    currency: str


def parse(text: str) -> Price:
    """Read an hourly price.

    >>> parse("0.35EUR/h")
    Price(per_hour=0.35, currency='EUR')
    """
    found = PATTERN.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not an hourly price.", hint="Write --price 0.35EUR/h.")
    number, currency = found.groups()
    return Price(per_hour=float(number), currency=SIGNS.get(currency, currency.upper()))


def cost(price: Price, output_tokens_per_s: float) -> dict[str, Any]:
    """Return the cost of a million output tokens at this throughput."""
    per_million = price.per_hour / 3600 / output_tokens_per_s * 1e6 if output_tokens_per_s > 0 else None
    return {"currency": price.currency, "per_hour": price.per_hour, "per_million_output_tokens": per_million}
