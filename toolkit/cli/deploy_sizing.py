"""How many servers a load takes and when there are more: from the planner or a load test, each with its reason."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from toolkit.cli import deploy_options, plan_options, served_build
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import Autoscale, BuildPlan, Cost, DeployedModel, GpuSpec, Promise, Range, Reasoned, Workload

if TYPE_CHECKING:
    from toolkit.bench.reading import Result
    from toolkit.plan.candidates import Bought, Candidate

#: Where nobody says how long a first token may take: this share of the requests in flight may wait.
WAITING_SHARE = 0.1
#: Of the queue: a threshold beyond it is never reached, because the server refuses what more comes.
QUEUE_SHARE = 0.5
#: Of the KV cache: TensorRT-LLM pauses requests when it is full, so more servers come before that.
KV_USE, KV_USE_MOST, KV_USE_MARGIN = 0.8, 0.95, 0.05
#: A chat template adds tokens to a prompt: a load test of this much shorter requests is still one of these.
LENGTH_MARGIN = 1.25
#: Of quiet, whatever a start takes: chats come back within minutes.
LEAST_COOLDOWN_S = 300


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one server carries, and who says so."""

    evidence: str
    isl: float
    osl: float
    concurrency: int  # in flight on one server, within the objectives
    rate_rps: float  # that this is
    output_tps: float | None
    ttft_ms: float | None
    tpot_ms: float | None
    kv_use: float | None  # share of the KV cache that this takes
    slos: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Sized:
    """How much is deployed."""

    promise: Promise
    replicas: Reasoned
    cost: Cost | None
    kv_use: float | None  # of one server under its load
    queue_size: int  # that one server lets wait before it refuses; 0: any number


def sized(plan: BuildPlan, model: DeployedModel, gpu: GpuSpec, options: dict[str, Any]) -> Sized:
    """Return the replicas that the asked load takes, what each is promised, and what all of them cost a month."""
    from toolkit.plan import serving

    if options["report"]:
        load = _measured(options["report"], model, gpu, options)
        _need_same_lengths(load, plan_options.workload_of(options, plan.conversion.model), options)
    else:
        load = planned(plan, gpu, options)
    replicas = _replicas(load, options)
    promise = Promise(
        evidence=load.evidence,
        isl=load.isl,
        osl=load.osl,
        concurrency=Reasoned(value=load.concurrency, reason=f"what one server carries, says {load.evidence}"),
        in_flight=options["concurrency"],
        rate_rps=_wanted_rate(options),
        slos=load.slos,
        ttft_ms=load.ttft_ms,
        tpot_ms=load.tpot_ms,
        output_tps=load.output_tps,
    )
    cost = _cost(gpu, model.ranks, replicas.whole, load, options)
    queue_size = serving.queue_size(plan.limits, plan.repository.max_queue_size)
    return Sized(promise=promise, replicas=replicas, cost=cost, kv_use=load.kv_use, queue_size=queue_size)


def autoscale_of(made: Sized, startup_s: int, options: dict[str, Any]) -> Autoscale | None:
    """Return when there are more servers, where that is asked for; raises UsageError where nothing could be read."""
    if not options["autoscale"]:
        for name in ("prometheus", "autoscaler"):
            if options[name]:
                raise UsageError(f"--{name} belongs to --autoscale.", hint="Add --autoscale 1..4.")
        return None
    fewest, most = deploy_options.range_of(options["autoscale"])
    if options["replicas"]:
        raise UsageError("--replicas and --autoscale both say how many servers.", hint="Leave one out.")
    _need_address(options["prometheus"])
    kind = options["autoscaler"] or deploy_options.AUTOSCALERS[0]
    if kind == "keda" and not options["prometheus"]:
        raise UsageError(
            "--autoscale has no metrics to go by: nobody said where Prometheus answers.",
            hint="Add --prometheus http://prometheus.monitoring:9090, or --autoscaler hpa with a metrics adapter.",
        )
    cooldown = max(LEAST_COOLDOWN_S, startup_s)
    return Autoscale(
        kind=kind,
        min_replicas=Reasoned(value=fewest, reason="asked for"),
        max_replicas=Reasoned(value=most, reason="asked for"),
        waiting=_within_queue(_waiting(made.promise), made.queue_size),
        kv_use=_kv_use(made.kv_use),
        cooldown_s=Reasoned(value=cooldown, reason=f"a server that goes takes up to {startup_s} s to come back"),
        prometheus_url=options["prometheus"] or "",
    )


def _need_address(url: str | None) -> None:
    """Raise UsageError where an address is none, or has a password in it: it is written down in plain text."""
    if url is None:
        return
    split = urlsplit(url)
    if split.scheme not in {"http", "https"} or not split.hostname or any(ord(one) <= 32 for one in url):
        raise UsageError(
            f"--prometheus {url!r} is no address.", hint="Write --prometheus http://prometheus.monitoring:9090."
        )
    if split.username is not None or split.password is not None or split.query:
        raise UsageError(
            "--prometheus has more than an address in it, and would stand in a file that many read.",
            hint="Write it without, and give KEDA a TriggerAuthentication.",
        )


def _waiting(promise: Promise) -> Reasoned:
    """Return how many requests may wait for one server: those that it gets to within the TTFT objective."""
    from toolkit.bench import slo as slos

    slo = next((one for one in promise.slos if slos.parse(one).name == "ttft"), None)
    busy_s = ((promise.ttft_ms or 0) + (promise.osl - 1) * (promise.tpot_ms or 0)) / 1000
    if slo and busy_s > 0:
        left_s = max(0.0, slos.parse(slo).target_ms - (promise.ttft_ms or 0)) / 1000
        rate = promise.concurrency.value / busy_s
        count = max(1, math.floor(left_s * rate))
        return Reasoned(
            value=count,
            reason=f"{_rate(rate)} requests/s end on a server; so many are begun within what {slo} leaves",
        )
    count = max(1, round(WAITING_SHARE * promise.concurrency.value))
    return Reasoned(value=count, reason=f"a tenth of the {promise.concurrency.whole} in flight; no TTFT was asked for")


def _within_queue(waiting: Reasoned, queue_size: int) -> Reasoned:
    """Return a threshold that is reached before requests are refused."""
    most = max(1, int(QUEUE_SHARE * queue_size)) if queue_size else math.inf
    if waiting.value <= most:
        return waiting
    return Reasoned(value=most, reason=f"half of the {queue_size} that may wait before requests are refused")


def _kv_use(planned: float | None) -> Reasoned:
    if planned is None or planned + KV_USE_MARGIN <= KV_USE:
        return Reasoned(value=KV_USE, reason="beyond it a burst fills the KV cache, and requests are paused")
    value = round(min(KV_USE_MOST, planned + KV_USE_MARGIN), 2)
    return Reasoned(value=value, reason=f"the load takes {planned:.0%} of the KV cache")


def _wanted_rate(options: Mapping[str, Any]) -> float | None:
    from toolkit.plan import demand

    if options["users"] is not None:
        return demand.rate_of_users(options["users"], options["requests_per_hour"], options["peak"])
    rate: float | None = options["rate"]
    return rate


def _replicas(load: Load, options: Mapping[str, Any]) -> Reasoned:
    if options["replicas"]:
        return _asked(options["replicas"], _taken(load, options))
    if options["autoscale"]:
        fewest, most = deploy_options.range_of(options["autoscale"])
        taken = _taken(load, options)
        if taken and taken.value > most:
            raise PlanInfeasible(
                f"The load takes {taken.whole} servers, and --autoscale ends at {most}: {taken.reason}.",
                hint=f"Write --autoscale {fewest}..{taken.whole}, or ask for less.",
            )
        return Reasoned(value=fewest, reason="the fewest that autoscaling leaves")
    return _taken(load, options) or Reasoned(value=1, reason="nobody said how much comes: --rate or --concurrency does")


def _asked(count: int, taken: Reasoned | None) -> Reasoned:
    if taken is None or taken.value <= count:
        return Reasoned(value=count, reason="asked for")
    return Reasoned(value=count, reason=f"asked for; the load takes {taken.whole}: {taken.reason}")


def _taken(load: Load, options: Mapping[str, Any]) -> Reasoned | None:
    """Return the servers that the load takes; None where nobody said how much it is."""
    from toolkit.plan.recommend import UTILISATION

    rate, in_flight = _wanted_rate(options), options["concurrency"]
    if rate:
        count = math.ceil(rate / (load.rate_rps * UTILISATION))
        reason = f"{rate:g} requests/s at {UTILISATION:.0%} of the {_rate(load.rate_rps)} that one carries"
        return Reasoned(value=_few(count), reason=f"{reason}, says {load.evidence}")
    if in_flight:
        count = math.ceil(in_flight / load.concurrency)
        reason = f"{in_flight} requests in flight, {load.concurrency} on each, says {load.evidence}"
        return Reasoned(value=_few(count), reason=reason)
    return None


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _few(count: int) -> int:
    if count > deploy_options.MOST_REPLICAS:
        raise PlanInfeasible(
            f"The load takes {count} servers.", hint="Fewer requests, or a faster card: trtk plan MODEL --compare."
        )
    return count


def planned(plan: BuildPlan, gpu: GpuSpec, options: dict[str, Any]) -> Load:
    """Return what the planner says that one server carries within the objectives."""
    from toolkit.bench import slo as slos
    from toolkit.cli import plan_making
    from toolkit.plan import demand, recommend

    slo = plan_options.slo_of(options)
    workload = dataclasses.replace(
        plan_options.workload_of(options, plan.conversion.model), concurrency=None, rate_rps=None
    )
    workload = _held(workload, plan, options)
    made = _candidate(plan, gpu, workload)
    wanted = recommend.Wanted(workload=workload, slo=slo)
    found = recommend.option_of(made, wanted, price=None, predict=plan_making.predictor())
    if isinstance(found, recommend.Rejected):
        raise PlanInfeasible(
            f"{gpu.title} does not keep the objectives: {found.reason}.",
            hint="Ask for less with --slo, or see trtk plan MODEL --compare.",
        )
    prediction = found.prediction
    return Load(
        evidence=f"the planner ({prediction.provenance})",
        isl=workload.isl,
        osl=workload.osl,
        concurrency=found.concurrency,
        rate_rps=demand.rate_at(prediction, concurrency=found.concurrency, osl=workload.osl),
        output_tps=prediction.output_tps.mid,
        ttft_ms=prediction.ttft_ms.mid,
        tpot_ms=prediction.tpot_ms.mid,
        kv_use=min(1.0, found.concurrency * workload.tokens / made.sizing.kv.max_tokens),
        slos=slos.expanded(options["slos"]),
    )


def _held(workload: Workload, plan: BuildPlan, options: Mapping[str, Any]) -> Workload:
    """Return a workload that the engine's limits hold; one that was asked for and is too long is an error."""
    longest = plan.limits.max_seq_len
    if workload.isl_max + workload.osl_max <= longest:
        return workload
    if plan_options.has_workload(dict(options)):
        raise PlanInfeasible(
            f"Requests of {workload.isl_max} + {workload.osl_max} tokens do not fit the engine, which was built for "
            f"{longest}.",
            hint="Build with --max-seq-len, or ask for shorter ones with --isl and --osl.",
        )
    isl = max(1, longest * 3 // 4)
    osl = max(1, longest - isl)
    return dataclasses.replace(workload, isl=isl, isl_max=isl, osl=osl, osl_max=osl)


def _candidate(plan: BuildPlan, gpu: GpuSpec, workload: Workload) -> Candidate:
    from toolkit import plan as planner
    from toolkit import releases
    from toolkit.plan import limits, storage
    from toolkit.plan.candidates import candidate
    from toolkit.specs import Sharding

    sharding = Sharding(tp=plan.limits.tp, pp=plan.limits.pp, ep=plan.limits.ep)
    target = planner.Target(gpu=gpu, flow=plan.flow, **releases.facts_of(plan.release))
    asked = limits.Asked(
        max_batch_size=plan.limits.max_batch_size,
        max_seq_len=plan.limits.max_seq_len,
        max_num_tokens=plan.limits.max_num_tokens,
        sharding=sharding,
        workload=workload,
        weights_bytes=plan.weights_bytes,
    )
    kv_asked = plan.conversion.kv_cache or storage.NONE
    model, recipe = plan.conversion.model, plan.conversion.recipe
    return candidate(model, target, recipe, sharding=sharding, asked=asked, kv_asked=kv_asked)


def _measured(report: Path, model: DeployedModel, gpu: GpuSpec, options: Mapping[str, Any]) -> Load:
    """Return what a load test of one server found."""
    from toolkit.bench import reading

    found = reading.read(report)
    if not found.document:
        raise UsageError(f"{report} is no report of `trtk bench`.", hint="Give a folder of reports/.")
    served_build.need_same(found.document, model, gpu, report=report)
    try:
        return _load_of(found, report, options)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise UsageError(
            f"{report} lacks what servers are counted by: {type(error).__name__} {error}.",
            hint="Measure again with `trtk bench`.",
        ) from error


def _load_of(found: Result, report: Path, options: Mapping[str, Any]) -> Load:
    from toolkit.bench import slo

    document = found.document
    if not document["valid"]:
        raise UsageError(
            f"{report} is not valid: {'; '.join(document['warnings'])}", hint="Measure again with `trtk bench`."
        )
    profile = document["profile"]
    asked = slo.expanded(options["slos"] or profile["slos"])
    judged = slo.verdicts([slo.parse(one) for one in asked], found.records)
    missed = [f"{one['name']} of {one['target_ms']:g} ms" for one in judged if one["verdict"] != "met"]
    if missed:
        raise PlanInfeasible(
            f"{report} missed the objective: {', '.join(missed)}. Nothing can be sized by it.",
            hint="Find the load that it holds: trtk bench --find-max.",
        )
    rate, answered = document["request_throughput_rps"], document["requests"]["ok"]
    if not (rate > 0 and answered > 0):
        raise UsageError(f"{report} has no request that was answered.", hint="Measure again with `trtk bench`.")
    return Load(
        evidence=f"{found.name} (measured)",
        isl=document["input_tokens"] / answered,
        osl=document["output_tokens"] / answered,
        concurrency=max(1, round(document["mean_in_flight"])),
        rate_rps=rate,
        output_tps=document["output_token_throughput_tps"],
        ttft_ms=document["ttft_ms"]["p50"],
        tpot_ms=document["tpot_ms"]["p50"],
        kv_use=((document.get("server_metrics") or {}).get("peak") or {}).get("kv_fraction"),
        slos=asked,
    )


def _need_same_lengths(load: Load, wanted: Workload, options: Mapping[str, Any]) -> None:
    """Raise PlanInfeasible where longer requests are asked for than the load test had."""
    for name, asked, had in (("isl", wanted.isl, load.isl), ("osl", wanted.osl, load.osl)):
        if options[name] is not None and asked > LENGTH_MARGIN * had:
            raise PlanInfeasible(
                f"{options['report']} measured requests of {load.isl:.0f} + {load.osl:.0f} tokens, and --{name} asks "
                f"for {asked:.0f}. It says nothing of those.",
                hint=f"Measure them: trtk bench --isl {wanted.isl:.0f} --osl {wanted.osl:.0f}.",
            )


def _cost(gpu: GpuSpec, ranks: int, replicas: int, load: Load, options: dict[str, Any]) -> Cost | None:
    from toolkit.plan import cost

    price: Bought | None = plan_options.prices_of(options)(gpu)
    if price is None or not ranks:
        return None
    all_tps = replicas * (load.output_tps or 0)
    tps = Range(low=all_tps, mid=all_tps, high=all_tps) if all_tps else None
    return cost.cost(
        price.per_gpu_hour,
        ranks * replicas,
        currency=price.currency,
        output_tps=tps,
        duty=options["duty"],
        offer=price.offer,
    )
