"""Options of `trtk plan` and the nouns they become: workload, objectives, prices."""

from __future__ import annotations

import math
import random
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from toolkit.errors import UsageError
from toolkit.specs import GpuSpec, ModelSpec, Slo, Speculation, Workload

if TYPE_CHECKING:
    from toolkit.plan.candidates import Bought
    from toolkit.prices import Prices

F = TypeVar("F", bound=Callable[..., Any])

#: Where nobody says: a question with some context, and an answer of a page.
ISL, OSL = 1024, 256
#: Beyond any site; replicas are counted one by one.
MOST_RPS = 1e6
LENGTH = re.compile(r"(\d+)(?::(\d+))?")
#: The longest of a distribution is taken to lie this many standard deviations above its mean.
DEVIATIONS_TO_MAX = 3.0
#: Requests of a distribution that stand for it; the longest of them is what a server is sized for.
DRAWS = 2000
#: Drafts : chance that one is kept : cost of one, as a share of a plain step.
SPECULATION = re.compile(r"(\d{1,4}):(\d*\.?\d+)(?::(\d*\.?\d+))?")
MOST_DRAFTS = 64
BUDGET = re.compile(r"([0-9]*\.?[0-9]+)\s*([A-Za-z]{3}|[$€])?\s*(?:/\s*mo(?:nth)?)?")
SIGNS = {"$": "USD", "€": "EUR"}


def workload_options(command: F) -> F:
    """Add what requests look like, how many are in flight, and how much of the card may be used."""
    for option in reversed(
        (
            click.option(
                "--isl",
                metavar="TOKENS",
                help="Input tokens of a request: 1024, mean:longest, 512:4096, or lognormal:512,0.6.",
            ),
            click.option("--osl", metavar="TOKENS", help="Output tokens: 256, mean:longest, uniform:64,512, …"),
            click.option("--concurrency", type=int, metavar="N", help="Requests in flight."),
            click.option("--headroom", metavar="80|90", help="Percent of the card that may be used at the most."),
        )
    ):
        command = option(command)
    return command


def load_options(command: F) -> F:
    """Add the load as people know it: a rate, users, a trace; and what a request may take."""
    for option in reversed(
        (
            click.option("--rate", type=float, metavar="R", help="Requests a second at the peak."),
            click.option("--users", type=int, metavar="N", help="People; with --requests-per-hour and --peak."),
            click.option("--requests-per-hour", type=float, default=6.0, show_default=True, help="Of one user."),
            click.option("--peak", type=float, default=3.0, show_default=True, help="The busiest hour over the mean."),
            click.option(
                "--trace",
                type=click.Path(path_type=Path, exists=True, dir_okay=False),
                help="Lengths of real requests, in any format that `trtk bench --trace` reads.",
            ),
            click.option(
                "--prefix-share", type=float, default=0.0, help="Of the input, found in the KV cache; 0 to 1."
            ),
            click.option(
                "--speculation",
                metavar="DRAFTS:CHANCE",
                help="Speculative decoding: 4:0.7 proposes four tokens a step; a third number is what one costs.",
            ),
            click.option(
                "--slo",
                "slos",
                multiple=True,
                metavar="NAME=TIME",
                help="ttft=500ms, itl=50ms, e2e=10s, or a preset: chat, rag, …",
            ),
        )
    ):
        command = option(command)
    return command


def price_options(command: F) -> F:
    """Add where prices come from, and what they are counted for."""
    for option in reversed(
        (
            click.option("--price", metavar="0.35EUR/h", help="Of one GPU; in place of the price list."),
            click.option(
                "--prices",
                "price_files",
                multiple=True,
                type=click.Path(path_type=Path),
                help="TOML file of your own prices, or a SkyPilot catalogue CSV; may be repeated.",
            ),
            click.option("--spot", is_flag=True, help="Spot prices as well: such a GPU can be taken away."),
            click.option("--region", default="", help="Offers of this region only."),
            click.option("--currency", default="EUR", show_default=True, help="Of the answer."),
            click.option("--duty", type=float, default=1.0, show_default=True, help="Share of the time with a load."),
            click.option("--budget", metavar="500EUR", help="For GPUs, a month, at the most."),
        )
    ):
        command = option(command)
    return command


def has_workload(options: dict[str, Any]) -> bool:
    """Return whether the user said anything about requests."""
    return any(options.get(name) is not None for name in ("isl", "osl", "trace"))


def workload_of(options: dict[str, Any], model: ModelSpec) -> Workload:
    """Return the workload; without a word about it, a question and answer that the model's context holds."""
    from toolkit.plan import demand

    load = _loads(options)
    if options.get("trace"):
        if options["isl"] or options["osl"]:
            raise UsageError("--trace has lengths of its own; --isl and --osl are other ones.", hint="Leave them out.")
        return replace(demand.workload_of_trace(_trace(options["trace"])), **load)
    longest = model.max_position_embeddings
    isl = _length("--isl", options.get("isl")) or _same(min(ISL, longest * 3 // 4))
    osl = _length("--osl", options.get("osl")) or _same(min(OSL, max(1, longest - isl.longest)))
    return Workload(
        isl=isl.mean, osl=osl.mean, isl_max=isl.longest, osl_max=osl.longest, isl_cv=isl.cv, osl_cv=osl.cv, **load
    )


def _loads(options: dict[str, Any]) -> dict[str, Any]:
    from toolkit.plan import demand

    given = [name for name in ("concurrency", "rate", "users") if options.get(name) is not None]
    if len(given) > 1:
        raise UsageError(f"--{given[0]} and --{given[1]} both say how much comes.", hint="Give one of them.")
    for name in given:
        value = options[name]
        if not value > 0 or not math.isfinite(value):
            raise UsageError(f"--{name} {value:g} is not above zero.", hint=f"Try --{name} 1.")
    share = options.get("prefix_share") or 0.0
    if not 0 <= share < 1:
        raise UsageError(f"--prefix-share {share:g} is no share of the input.", hint="Write --prefix-share 0.5.")
    rate = options.get("rate")
    if options.get("users") is not None:
        rate = demand.rate_of_users(options["users"], options["requests_per_hour"], options["peak"])
    if rate is not None and rate > MOST_RPS:
        raise UsageError(f"{rate:g} requests a second are more than a plan is made for.", hint="Try --rate 100.")
    return {"concurrency": options.get("concurrency"), "rate_rps": rate, "prefix_share": share}


@dataclass(frozen=True, kw_only=True)
class _Length:
    """Tokens of prompts, or of answers."""

    mean: float
    longest: int
    cv: float


def _same(tokens: int) -> _Length:
    return _Length(mean=tokens, longest=tokens, cv=0.0)


def _length(option: str, text: str | None) -> _Length | None:
    """Return what an option's text says: a number, mean:longest, or a distribution as `trtk bench` writes them."""
    if text is None:
        return None
    found = LENGTH.fullmatch(str(text).strip())
    if found is None and ":" in str(text):
        return _drawn(str(text))
    mean, longest = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if mean < 1 or longest < mean:
        raise UsageError(f"{option} {text} is no number of tokens.", hint=f"Write {option} 512, or {option} 512:4096.")
    return _Length(mean=mean, longest=longest, cv=(longest / mean - 1) / DEVIATIONS_TO_MAX)


def _drawn(text: str) -> _Length:
    """Return a distribution by what a load test of it would send."""
    from toolkit.bench import lengths

    distribution, dice = lengths.parse(text), random.Random(0)
    found = [distribution.draw(dice) for _ in range(DRAWS)]
    mean = statistics.fmean(found)
    return _Length(mean=mean, longest=max(found), cv=statistics.pstdev(found) / mean)


def _trace(path: Path) -> list[tuple[int, int]]:
    from toolkit.bench import traces

    return [(row.input_tokens, row.output_tokens) for row in traces.read(path)]


def slo_of(options: dict[str, Any]) -> Slo:
    """Return what a request may take."""
    from toolkit.bench import slo

    asked: dict[str, float] = {}
    for text in slo.expanded(options["slos"]):
        found = slo.parse(text)
        if found.target_ms <= 0:
            raise UsageError(f"--slo {text} asks for no time at all.", hint="Write --slo ttft=500ms.")
        name = "tpot" if found.name == "itl" else found.name
        asked[name] = min(found.target_ms, asked.get(name, math.inf))
    return Slo(ttft_ms=asked.get("ttft"), tpot_ms=asked.get("tpot"), e2e_ms=asked.get("e2e"))


def speculation_of(options: dict[str, Any]) -> Speculation | None:
    """Return the drafts that --speculation speaks of."""
    text = options.get("speculation")
    if text is None:
        return None
    found = SPECULATION.fullmatch(text.strip())
    tokens, chance = (int(found[1]), float(found[2])) if found else (0, 0.0)
    if not 1 <= tokens <= MOST_DRAFTS or not 0 < chance <= 1:
        raise UsageError(
            f"--speculation {text} is no number of drafts and their chance.",
            hint="Write --speculation 4:0.7: four tokens are proposed, of which each is kept with a chance of 0.7.",
        )
    return Speculation(draft_tokens=tokens, acceptance=chance, draft_cost=float(found[3] or 0) if found else 0.0)


def headroom_of(options: dict[str, Any]) -> float | None:
    """Return the share of the card that may be used."""
    text = options.get("headroom")
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%?\s*", str(text))
    share = float(found[1]) if found else 0.0
    share = share / 100 if share > 1 else share
    if not 0.1 <= share <= 1:
        raise UsageError(f"--headroom {text} is no share of a card.", hint="Write --headroom 80 or --headroom 90.")
    return share


def prices_of(options: dict[str, Any]) -> Callable[[GpuSpec], Bought | None]:
    """Return what a card costs, in the currency of the answer."""
    from toolkit import prices
    from toolkit.bench import price
    from toolkit.plan.candidates import Bought

    book = prices.defaults()
    for path in options["price_files"]:
        book = prices.with_file(book, path)
    currency = options["currency"].upper()
    book.converted(1, currency, into="EUR")
    if options["region"]:
        book.need_region(options["region"])
    kinds = prices.KINDS if options["spot"] else (prices.ON_DEMAND,)
    if options["price"]:
        if options["price"].strip().startswith("-"):
            raise UsageError(f"A price of {options['price']} is below zero.", hint="Write --price 0.35EUR/h.")
        own = price.parse(options["price"])
        if own.per_hour <= 0:
            raise UsageError(f"A price of {options['price']} is none.", hint="Write --price 0.35EUR/h, above zero.")
        each = book.converted(own.per_hour, own.currency, into=currency)
        return lambda gpu: None if gpu.is_cpu else Bought(per_gpu_hour=each, currency=currency)

    def look_up(gpu: GpuSpec) -> Bought | None:
        offers = book.of(gpu.name, kinds=kinds, region=options["region"])
        if not offers:
            return None
        best = offers[0]
        converted = book.converted(best.per_gpu_hour, best.currency, into=currency)
        return Bought(per_gpu_hour=converted, currency=currency, offer=best)

    return look_up


def budget_of(options: dict[str, Any]) -> float | None:
    """Return the budget of a month in the currency of the answer."""
    text = options["budget"]
    if text is None:
        return None
    found = BUDGET.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0:
        raise UsageError(f"--budget {text} is no sum of money.", hint="Write --budget 500EUR.")
    return _in_currency(float(found[1]), found[2], options)


def _in_currency(amount: float, currency: str | None, options: dict[str, Any]) -> float:
    from toolkit import prices

    book: Prices = prices.defaults()
    for path in options["price_files"]:
        book = prices.with_file(book, path)
    wanted = options["currency"].upper()
    given = SIGNS.get(currency or "", (currency or wanted).upper())
    return book.converted(amount, given, into=wanted)
