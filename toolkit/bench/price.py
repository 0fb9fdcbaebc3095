"""What the measured throughput costs at an hourly price: by tokens and requests, busy and at the user's utilization."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolkit.bench.latency import itl_ms, ttft_ms
from toolkit.bench.runs import Run
from toolkit.errors import UsageError
from toolkit.specs import LoadProfile, RequestRecord

PATTERN = re.compile(r"([0-9]*\.?[0-9]+)\s*([A-Za-z]{3}|[$€£])\s*/\s*h(?:our)?")
SIGNS = {"$": "USD", "€": "EUR", "£": "GBP"}
#: Requests that are sent one at a time to see how long an input takes with nobody in its way.
LONE_REQUESTS = 3
#: Their prompts must be in no prefix cache, and must not be in the cache when others of the run come.
LONE_SEED = 2_000_003
LONE_OUTPUT_TOKENS = 2


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
    if float(number) <= 0:
        raise UsageError(f"A price of {text!r} is none.", hint="Write --price 0.35EUR/h, above zero.")
    return Price(per_hour=float(number), currency=SIGNS.get(currency, currency.upper()))


def cost(profile: LoadProfile, rates: Mapping[str, float], input_time_share: float | None) -> dict[str, Any] | None:
    """Return what tokens and requests cost at these rates a second (input_tokens, output_tokens, requests)."""
    if profile.price is None:
        return None
    price = parse(profile.price)
    busy = _rows(price, rates, input_time_share)
    idle = profile.utilization
    return {
        "currency": price.currency,
        "per_hour": price.per_hour,
        "source": profile.price_source or "given by the user",
        "input_time_share": input_time_share,
        **busy,
        "utilization": idle,
        "at_utilization": None
        if idle is None
        else _rows(price, {name: rate * idle for name, rate in rates.items()}, input_time_share),
    }


def _rows(price: Price, rates: Mapping[str, float], input_time_share: float | None) -> dict[str, Any]:
    given, made, requests = rates["input_tokens"], rates["output_tokens"], rates["requests"]
    share = input_time_share
    return {
        "per_million_tokens": _per_million(price, given + made),
        "per_million_output_tokens": _per_million(price, made),
        "input_apart_per_million": None if share is None else _per_million(price, given, share=share),
        "output_apart_per_million": None if share is None else _per_million(price, made, share=1 - share),
        "tokens_per_unit": (given + made) * 3600 / price.per_hour,
        "output_tokens_per_unit": made * 3600 / price.per_hour,
        "per_thousand_requests": None if requests <= 0 else price.per_hour / 3600 / requests * 1000,
        "requests_per_hour": requests * 3600,
    }


def _per_million(price: Price, tokens_per_s: float, *, share: float = 1.0) -> float | None:
    return price.per_hour / 3600 * share / tokens_per_s * 1e6 if tokens_per_s > 0 else None


def lone(profile: LoadProfile) -> LoadProfile:
    """Return a few requests one at a time, with inputs like the profile's and hardly any output."""
    of_trace = [row.input_tokens for row in profile.trace]
    return replace(
        profile,
        requests=LONE_REQUESTS,
        duration_s=None,
        concurrency=1,
        arrival="closed",
        stages=(),
        trace=(),
        isl=round(statistics.fmean(of_trace)) if of_trace else profile.isl,
        prompts=profile.prompts[-LONE_REQUESTS:],
        is_capped=False,
        ramp_s=0.0,
        warmup_requests=1,
        cancel_share=0.0,
        shared_prefix=0.0,
        osl=LONE_OUTPUT_TOKENS,
        osl_lengths="",
        seed=profile.seed + LONE_SEED,
        metrics_url="",
        turns="",
        think_s="",
        processes=1,
    )


def input_s_per_token(alone: Run) -> float | None:
    """Return the seconds of the server that a token of input takes, from requests that had it for themselves.

    The first token comes a step of the engine after the input, and such a step is the gap to the second.
    """
    found = [
        max(first - (itl_ms(record) or 0.0), 0.0) / 1000 / record.input_tokens
        for record in alone.records
        if record.outcome == "ok" and record.input_tokens and (first := ttft_ms(record)) is not None
    ]
    return min(found, default=None)


def input_time_share(run: Run, ok: Sequence[RequestRecord]) -> float | None:
    """Return the share of a run's time that its input took, which is to pay for it; None where it cannot be told."""
    if run.input_s_per_token is None or not run.profile.is_streaming:
        return None
    share = run.input_s_per_token * sum(record.input_tokens for record in ok) / run.duration_s
    return share if share < 1 else None
