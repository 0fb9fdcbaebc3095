"""Which cards, quantization and ranks carry a load at the least cost, why others do not, and what comes nearest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from toolkit.errors import PlanInfeasible
from toolkit.plan import cost, demand, limits
from toolkit.plan.candidates import Bought, Candidate, candidate
from toolkit.plan.support import Target
from toolkit.specs import (
    Cost,
    GpuSpec,
    ModelSpec,
    Prediction,
    QuantRecipe,
    Range,
    ServerSetup,
    Sharding,
    Slo,
    Speculation,
    Workload,
)

Predict = Callable[[ServerSetup, Workload], Prediction]
#: Of the rate that an SLO allows, what is planned with: arrivals come in bunches.
UTILISATION = 0.7
#: What is tried in this order until one fits. Ranks on PCIe wait for the bus in every layer: stages before shares, and
#: no more than two shares (allreduce_points: 2 GB/s among eight L40S).
ONE = (Sharding(),)
OVER_PCIE = (Sharding(pp=2), Sharding(tp=2), Sharding(pp=4), Sharding(tp=2, pp=2), Sharding(pp=8))
OVER_NVLINK = (Sharding(tp=2), Sharding(tp=4), Sharding(tp=8))
#: Fewer requests at once than this leave a card idle: more ranks may be cheaper for the cache that they add.
STARVED = 16
#: A card whose NVLink is a bridge between two.
BRIDGED_GB_PER_S = 250.0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be carried and what it may cost."""

    workload: Workload  # of one request; its concurrency or rate is the whole load
    slo: Slo = field(default_factory=Slo)
    budget_per_month: float | None = None
    headroom: float | None = None
    duty: float = 1.0
    max_gpus: int = 64
    speculation: Speculation | None = None


@dataclass(frozen=True, kw_only=True)
class Option:
    """A way to carry the load: replicas of one candidate."""

    candidate: Candidate
    replicas: int
    concurrency: int  # in flight on each replica, at the load that is served
    prediction: Prediction
    rate_rps: float  # that the replicas carry within the SLO
    served_tps: float  # output tokens a second of the load itself, or of all that they can
    cost: Cost | None  # None: nobody has named a price
    is_load_given: bool = False  # a rate or a concurrency was asked for
    is_doubtful: bool = False  # the slow end of the prediction misses an SLO

    @property
    def gpus(self) -> int:
        """Cards of all replicas."""
        return self.replicas * self.candidate.gpus


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A way that does not carry the load, and why."""

    gpu: str
    quant: str
    parallel: str
    reason: str
    miss: float = math.inf  # how far off it is: 1.2 takes a fifth more than was asked
    option: Option | None = None  # what it would be, where it only misses an SLO or the budget
    is_helped_by_ranks: bool = False


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """Options by cost, the front of cost against speed, and what was rejected."""

    options: tuple[Option, ...]
    front: tuple[Option, ...]
    rejected: tuple[Rejected, ...]

    @property
    def nearest(self) -> Rejected | None:
        """What misses by the least."""
        return min(self.rejected, key=lambda each: each.miss, default=None)


def recommend(
    model: ModelSpec,
    targets: Iterable[Target],
    recipes: Sequence[QuantRecipe],
    *,
    wanted: Wanted,
    prices: Callable[[GpuSpec], Bought | None],
    predict: Predict,
) -> Recommendation:
    """Return every option that carries the load within the SLO and the budget, cheapest first."""
    options: list[Option] = []
    rejected: list[Rejected] = []
    for target in targets:
        price = prices(target.gpu)
        for recipe in recipes:
            found = _of_card(model, target, recipe, wanted=wanted, price=price, predict=predict)
            if isinstance(found, Option):
                options.append(found)
            else:
                rejected.append(found)
    options.sort(key=_rank)
    return Recommendation(options=tuple(options), front=front_of(options), rejected=tuple(rejected))


def front_of(options: Iterable[Option]) -> tuple[Option, ...]:
    """Return the options that no other beats in both monthly cost and time per token, cheapest first."""
    found: list[Option] = []
    priced = [option for option in options if option.cost]
    for option in sorted(priced, key=lambda each: (_per_month(each), each.prediction.tpot_ms.mid)):
        if not found or option.prediction.tpot_ms.mid < found[-1].prediction.tpot_ms.mid:
            found.append(option)
    return tuple(found)


def option_of(made: Candidate, wanted: Wanted, *, price: Bought | None, predict: Predict) -> Option | Rejected:
    """Return replicas of a candidate that carry the load, or why none do."""
    load = wanted.workload
    alone = predict(made.setup, replace(load, concurrency=1, rate_rps=None))
    missed = _missed(alone, wanted.slo, load.osl)
    if missed:
        option = _option(made, wanted, 1, alone, price=price)
        ratio, what = missed
        return _rejected(made, f"{what} with one request alone", miss=ratio, option=option, is_helped_by_ranks=True)
    most = made.sizing.max_concurrency
    if load.concurrency:
        most = min(most, load.concurrency)
    concurrency, found = _most_within(made, wanted, most, alone=alone, predict=predict)
    option = _at_load(_option(made, wanted, concurrency, found, price=price), wanted, predict)
    if option.gpus > wanted.max_gpus:
        return _rejected(
            made,
            f"it takes {option.gpus} cards of {wanted.max_gpus}",
            miss=option.gpus / wanted.max_gpus,
            option=option,
        )
    if wanted.budget_per_month and option.cost and option.cost.per_month > wanted.budget_per_month:
        over = option.cost.per_month / wanted.budget_per_month
        reason = f"{option.cost.per_month:,.0f} {option.cost.currency} a month is above the budget"
        return _rejected(made, reason, miss=over, option=option)
    return option


def _of_card(
    model: ModelSpec,
    target: Target,
    recipe: QuantRecipe,
    *,
    wanted: Wanted,
    price: Bought | None,
    predict: Predict,
) -> Option | Rejected:
    """Return one copy a card where it fits, else the fewest cards that hold one; and more ranks where one is slow."""
    gpu = target.gpu
    best: Option | None = None
    nearest: Rejected | None = None
    for sharding in (*ONE, *_ways(gpu)):
        try:
            made = candidate(model, target, recipe, sharding=sharding, asked=_asked(wanted, sharding))
            found = option_of(made, wanted, price=price, predict=predict)
        except PlanInfeasible as refusal:
            miss = refusal.miss if isinstance(refusal, limits.TooSmall) else math.inf
            found = Rejected(
                gpu=gpu.name,
                quant=recipe.name,
                parallel=parallel_of(sharding),
                reason=str(refusal),
                miss=miss,
                # Too large for one, or not to be divided in this way.
                is_helped_by_ranks=math.isfinite(miss) or sharding != Sharding(),
            )
        if isinstance(found, Option):
            best = found if best is None else min(best, found, key=_rank)
            if found.candidate.sizing.max_concurrency >= STARVED:
                break
            continue
        if best:
            break
        if nearest is None or found.miss < nearest.miss:
            nearest = found
        if not found.is_helped_by_ranks:
            break
    found_or_not = best or nearest
    assert found_or_not, "one rank was tried"
    return found_or_not


def parallel_of(sharding: Sharding) -> str:
    """Return `tp2`, `pp2`, `tp2 pp2`, or `-` for one rank."""
    named = {"tp": sharding.tp, "pp": sharding.pp, "ep": sharding.ep}
    return " ".join(f"{name}{count}" for name, count in named.items() if count > 1) or "-"


def _ways(gpu: GpuSpec) -> tuple[Sharding, ...]:
    if gpu.is_cpu:
        return ()
    if gpu.nvlink_gb_per_s > BRIDGED_GB_PER_S:
        return OVER_NVLINK
    return (OVER_NVLINK[0], *OVER_PCIE) if gpu.nvlink_gb_per_s else OVER_PCIE


def _asked(wanted: Wanted, sharding: Sharding) -> limits.Asked:
    # A replica is as large as the memory lets it be; how much of it the load needs is seen afterwards.
    load = replace(wanted.workload, concurrency=None, rate_rps=None)
    return limits.Asked(workload=load, headroom=wanted.headroom, sharding=sharding, speculation=wanted.speculation)


def _most_within(
    made: Candidate, wanted: Wanted, most: int, *, alone: Prediction, predict: Predict
) -> tuple[int, Prediction]:
    """Return the most requests in flight whose times are within the SLO, by bisection: they only grow with it."""
    load = wanted.workload
    whole = predict(made.setup, replace(load, concurrency=most, rate_rps=None))
    if not _missed(whole, wanted.slo, load.osl):
        return most, whole
    low, high, best = 1, most, alone
    while high - low > 1:
        middle = (low + high) // 2
        found = predict(made.setup, replace(load, concurrency=middle, rate_rps=None))
        if _missed(found, wanted.slo, load.osl):
            high = middle
        else:
            low, best = middle, found
    return low, best


def _missed(found: Prediction, slo: Slo, osl: float) -> tuple[float, str] | None:
    """Return how far the furthest SLO is missed, and a sentence; None where all are met."""
    times = {
        "TTFT": (found.ttft_ms.mid, slo.ttft_ms),
        "TPOT": (found.tpot_ms.mid, slo.tpot_ms),
        "the whole answer": (1000 * demand.latency_s(found, osl), slo.e2e_ms),
    }
    misses = [
        (time / target, f"{name} is {_milliseconds(time)} ms, not {_milliseconds(target)}")
        for name, (time, target) in times.items()
        if target and time > target
    ]
    return max(misses, default=None)


def _milliseconds(time: float) -> str:
    return f"{time:,.0f}" if time >= 10 else f"{time:.3g}"


def _option(made: Candidate, wanted: Wanted, concurrency: int, found: Prediction, *, price: Bought | None) -> Option:
    load = wanted.workload
    rate = demand.rate_at(found, concurrency=concurrency, osl=load.osl)
    replicas = 1
    if load.rate_rps:
        replicas = math.ceil(load.rate_rps / (rate * UTILISATION))
    elif load.concurrency:
        replicas = math.ceil(load.concurrency / concurrency)
    offered = load.rate_rps * load.osl if load.rate_rps else None
    tps = _times(found, replicas, most=offered)
    priced = None
    if price:
        priced = cost.cost(
            price.per_gpu_hour,
            replicas * made.gpus,
            currency=price.currency,
            output_tps=tps,
            duty=wanted.duty,
            offer=price.offer,
        )
    return Option(
        candidate=made,
        replicas=replicas,
        concurrency=concurrency,
        prediction=found,
        rate_rps=rate * replicas,
        served_tps=tps.mid,
        cost=priced,
        is_load_given=bool(load.rate_rps or load.concurrency),
        is_doubtful=_is_doubtful(found, wanted),
    )


def _at_load(option: Option, wanted: Wanted, predict: Predict) -> Option:
    """Return an option with the times of the load that each replica has, where that is less than it could carry."""
    load, replicas = wanted.workload, option.replicas
    if load.rate_rps:
        found = predict(option.candidate.setup, replace(load, rate_rps=load.rate_rps / replicas, concurrency=None))
    elif load.concurrency:
        found = predict(option.candidate.setup, replace(load, concurrency=math.ceil(load.concurrency / replicas)))
        option = _serving(option, _times(found, replicas, most=None), wanted)
    else:
        return option
    return replace(option, prediction=found, is_doubtful=_is_doubtful(found, wanted))


def _serving(option: Option, tps: Range, wanted: Wanted) -> Option:
    """Return an option that serves TPS, and what its tokens cost then."""
    priced = option.cost
    if priced:
        priced = cost.cost(
            priced.per_hour / option.gpus,
            option.gpus,
            currency=priced.currency,
            output_tps=tps,
            duty=wanted.duty,
            offer=priced.offer,
        )
    return replace(option, served_tps=tps.mid, cost=priced)


def _is_doubtful(found: Prediction, wanted: Wanted) -> bool:
    slow = replace(
        found,
        ttft_ms=replace(found.ttft_ms, mid=found.ttft_ms.high),
        tpot_ms=replace(found.tpot_ms, mid=found.tpot_ms.high),
    )
    return _missed(slow, wanted.slo, wanted.workload.osl) is not None


def _times(found: Prediction, replicas: int, *, most: float | None) -> Range:
    scaled = [each * replicas for each in (found.output_tps.low, found.output_tps.mid, found.output_tps.high)]
    low, mid, high = (min(each, most) if most else each for each in scaled)
    return Range(low=low, mid=mid, high=high)


def _rejected(
    made: Candidate, reason: str, *, miss: float, option: Option, is_helped_by_ranks: bool = False
) -> Rejected:
    return Rejected(
        gpu=made.setup.gpu.name,
        quant=made.recipe.name,
        parallel=parallel_of(made.sharding),
        reason=reason,
        miss=miss,
        option=option,
        is_helped_by_ranks=is_helped_by_ranks,
    )


def _rank(option: Option) -> tuple[float, float, int]:
    return (_per_month(option), option.prediction.tpot_ms.mid, option.gpus)


def _per_month(option: Option) -> float:
    """Return the month's cost where a load is given, and what a million tokens cost otherwise: both rank alike."""
    if option.cost is None:
        # The CPU of this machine is there already.
        return 0.0 if option.candidate.setup.gpu.is_cpu and option.is_load_given else math.inf
    per_token = option.cost.per_month / max(option.served_tps, 1e-9)
    return option.cost.per_month if option.is_load_given else per_token
