"""`--price`: an hourly price, or the name of a GPU, whose cheapest dated offer it then is."""

from __future__ import annotations

import re
from typing import Any

from toolkit.errors import UsageError

#: A GPU's name, and how many of it: l4, rtx-4090*2.
GPU = re.compile(r"\s*([A-Za-z][\w. -]*?)\s*(?:\*\s*([0-9]+))?\s*")


def fields_of(price: str | None, utilization: float | None) -> dict[str, Any]:
    """Return the fields of a load profile that say what the server costs."""
    from toolkit.bench import price as prices

    if price is None:
        if utilization is not None:
            raise UsageError("--utilization without a price changes nothing.", hint="Add --price 0.35EUR/h.")
        return {}
    found = GPU.fullmatch(price)
    if found is None:
        prices.parse(price)
        return {"price": price, "utilization": utilization}
    text, source = _offer(found[1], int(found[2] or 1), price)
    return {"price": text, "price_source": source, "utilization": utilization}


def _offer(name: str, count: int, said: str) -> tuple[str, str]:
    from toolkit import gpus, prices
    from toolkit.errors import UnknownName

    try:
        gpu = gpus.get(name).name
    except UnknownName as error:
        raise UsageError(
            f"{said!r} is not an hourly price, and no GPU has that name.",
            hint="Write --price 0.35EUR/h, or --price l4, --price h100*2 for the cheapest that trtk knows.",
        ) from error
    cards = gpu if count == 1 else f"{count} x {gpu}"
    offers = prices.defaults().of(gpu)
    if not offers or count < 1:
        raise UsageError(f"No price of {cards} is known.", hint="Write --price 0.35EUR/h.")
    best = offers[0]
    return f"{best.per_gpu_hour * count:.6g}{best.currency}/h", f"{cards} at {best.provider}, on demand, {best.date}"
