"""What a plan costs: by the hour, the month and a million tokens, with the idle time and the extras that bills have."""

from __future__ import annotations

from toolkit.errors import UsageError
from toolkit.specs import Cost, PriceOffer, Range

HOURS_A_MONTH = 730.0
#: Bills for serving are this much above the GPU's price: the machine around it, storage, traffic.
#: https://mercatus-ai.com (2026-05) for the range.
EXTRAS = (1.3, 1.5)


def cost(
    per_gpu_hour: float,
    gpus: int,
    *,
    currency: str,
    output_tps: Range | None = None,
    duty: float = 1.0,
    offer: PriceOffer | None = None,
) -> Cost:
    """Return the cost of GPUS cards that serve OUTPUT_TPS together for DUTY of the time, and are paid for all of it."""
    if per_gpu_hour <= 0:
        raise UsageError(
            f"A price of {per_gpu_hour:g} {currency} an hour is none.", hint="Write --price 0.35EUR/h, above zero."
        )
    if not 0 < duty <= 1:
        raise UsageError(
            f"A duty cycle of {duty:g} is no share of the time.", hint="Write --duty 0.4, of 1 at the most."
        )
    per_hour = per_gpu_hour * gpus
    month = per_hour * HOURS_A_MONTH
    low, high = EXTRAS
    busy = _per_million(per_hour, output_tps)
    return Cost(
        currency=currency,
        per_hour=per_hour,
        per_month=month,
        per_month_with_extras=Range(low=low * month, mid=(low + high) / 2 * month, high=high * month),
        per_million_output_tokens=busy,
        per_million_at_duty=_scaled(busy, 1 / duty) if busy else None,
        duty=duty,
        offer=offer,
    )


def _per_million(per_hour: float, tps: Range | None) -> Range | None:
    """Return the range of prices: the fewest tokens make the dearest million."""
    if tps is None or tps.low <= 0:
        return None
    low, mid, high = (per_hour / 3600 / each * 1e6 for each in (tps.high, tps.mid, tps.low))
    return Range(low=low, mid=mid, high=high)


def _scaled(value: Range, factor: float) -> Range:
    return Range(low=value.low * factor, mid=value.mid * factor, high=value.high * factor)
