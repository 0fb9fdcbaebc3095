"""The documents of `trtk plan --json`: design.md names the keys of a plan; what is beside them is extra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.errors import PlanInfeasible
from toolkit.specs import Cost, Prediction, Range, to_json

if TYPE_CHECKING:
    from toolkit.cli.plan_making import Answer, Question
    from toolkit.plan.recommend import Option, Recommendation, Rejected
    from toolkit.plan.sweep import Edge, Point

#: Published throughput of eight L40S is that of four, and four cards in stages did twice what four in shares did.
MOST_SHARES_OVER_PCIE = 2


def plan(question: Question, answer: Answer, *, is_explained: bool) -> dict[str, Any]:
    """Return one plan."""
    from toolkit.plan import sweep
    from toolkit.plan.recommend import parallel_of

    made, sizing = answer.candidate, answer.candidate.sizing
    cost = cost_of(question, answer)
    document = {
        "fits": not misfits(question, answer),
        "is_load_carried": not faults(question, answer),
        "memory_bytes": to_json(sizing.memory),
        "kv": to_json(sizing.kv),
        "limits": {
            "max_batch_size": sizing.limits.max_batch_size,
            "max_concurrency": sizing.max_concurrency,
            "max_num_tokens": sizing.limits.max_num_tokens,
            "max_seq_len": sizing.limits.max_seq_len,
        },
        "performance": performance(answer.prediction),
        "cost": to_json(cost) if cost else None,
        "reasons": [f"{choice.name} {choice.value}: {choice.reason}" for choice in sizing.choices],
        "warnings": [*faults(question, answer), *warnings(question, answer)],
        "model": question.name,
        "gpu": made.setup.gpu.name,
        "quant": made.recipe.name,
        "flow": made.flow,
        "parallel": parallel_of(made.sharding),
        "gpus": made.gpus,
        "kv_cache_type": made.kv_type or "16 bits",
        "kv_fraction": sizing.kv_fraction,
        "scheduler_policy": sizing.scheduler_policy,
        "workload": to_json(question.workload),
        "binding": sizing.binding,
        "longest_context": answer.longest_context,
        "cliff": to_json(sweep.cliff_of(made)),
    }
    if answer.option:
        document["replicas"] = answer.option.replicas
    if is_explained:
        document["knobs"] = [to_json(knob) for knob in answer.knobs]
    return document


def refusal(question: Question, error: PlanInfeasible) -> dict[str, Any]:
    """Return what there is to say of a plan that cannot be: the keys of one that can, and the reason."""
    empty = dict.fromkeys(("memory_bytes", "kv", "limits", "performance", "cost"))
    reasons = [str(error), *([error.hint] if error.hint else [])]
    asked = {name: question.options[name] for name in ("gpu", "quant")}
    return {"fits": False, **empty, "reasons": reasons, "warnings": [], "model": question.name, **asked}


def performance(found: Prediction) -> dict[str, Any]:
    """Return a prediction with what bounds it and what it stands on."""
    return {
        "ttft_ms": _range(found.ttft_ms),
        "tpot_ms": _range(found.tpot_ms),
        "output_tps": _range(found.output_tps),
        "bound_by": found.bound_by,
        "provenance": found.provenance,
        "assumptions": list(found.assumptions),
    }


def cost_of(question: Question, answer: Answer) -> Cost | None:
    """Return what the asked cards cost; of replicas, what the load needs."""
    from toolkit.plan import cost

    price = question.prices(answer.candidate.setup.gpu)
    is_alone = answer.missed is not None and answer.missed.is_helped_by_ranks  # too slow with one request: no load
    if answer.option and answer.option.cost and not is_alone:
        return answer.option.cost
    if price is None:
        return None
    return cost.cost(
        price.per_gpu_hour,
        answer.candidate.gpus,
        currency=price.currency,
        output_tps=answer.prediction.output_tps,
        duty=question.wanted.duty,
        offer=price.offer,
    )


def faults(question: Question, answer: Answer) -> list[str]:
    """Return why the plan is not what was asked for, a sentence each."""
    return [*misfits(question, answer), *misses(question, answer)]


def misfits(question: Question, answer: Answer) -> list[str]:
    """Return what the memory does not hold."""
    sizing, load = answer.candidate.sizing, question.workload
    if not load.concurrency or load.concurrency <= sizing.max_concurrency:
        return []
    return [
        f"{load.concurrency} requests of {sizing.request_tokens} tokens do not run at once: {sizing.binding} holds "
        f"{sizing.max_concurrency}."
    ]


def misses(question: Question, answer: Answer) -> list[str]:
    """Return which objective or budget is missed."""
    load, option = question.workload, answer.option
    if answer.missed:
        return [f"{answer.missed.reason[0].upper()}{answer.missed.reason[1:]}."]
    most = min(load.concurrency or 0, answer.candidate.sizing.max_concurrency)
    if option and load.concurrency and option.concurrency < most:
        return [f"The SLO holds up to {option.concurrency} requests in flight, not {load.concurrency}."]
    return []


def warnings(question: Question, answer: Answer) -> list[str]:
    """Return what is worth knowing and does not stop anybody."""
    gpu, option = answer.candidate.setup.gpu, answer.option
    found = list(answer.prediction.assumptions)
    if not gpu.is_cpu and not gpu.is_memory_measured:
        found.append(f"The usable memory of {gpu.title} is an estimate; `trtk doctor` reads it from a card.")
    if gpu.nvlink_gb_per_s == 0 and answer.candidate.sharding.tp > MOST_SHARES_OVER_PCIE:
        found.append(
            f"{gpu.title} has no NVLink: with more than {MOST_SHARES_OVER_PCIE} tensor ranks they wait for the bus; "
            "replicas and --pp come before --tp."
        )
    if option and option.is_doubtful and not misses(question, answer):
        found.append("The SLO is met by the middle of the prediction, and missed by its slow end.")
    if option and question.workload.rate_rps and option.replicas > 1:
        found.append(f"The rate takes {option.replicas} replicas; the times are of one of them.")
    return found


def recommendation(question: Question, found: Recommendation, quality: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return options, front, rejections and the nearest miss."""
    return {
        "model": question.name,
        "workload": to_json(question.workload),
        "slo": to_json(question.slo),
        "options": [option_row(option, quality) for option in found.options],
        "pareto_front": [option_row(option, quality) for option in found.front],
        "rejected": [_rejected(each, quality) for each in found.rejected],
        "nearest_miss": _rejected(found.nearest, quality) if found.nearest and not found.options else None,
    }


def formats(found: Recommendation, quality: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what else the same card could run, by cost, and what it could not."""
    return {
        "formats": [option_row(option, quality) for option in found.options],
        "rejected_formats": [_rejected(each, quality) for each in found.rejected],
    }


def option_row(option: Option, quality: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return one way to carry the load."""
    from toolkit.plan.recommend import parallel_of

    made = option.candidate
    measured = quality.get(made.recipe.name)
    return {
        "gpu": made.setup.gpu.name,
        "quant": made.recipe.name,
        "flow": made.flow,
        "parallel": parallel_of(made.sharding),
        "replicas": option.replicas,
        "gpus": option.gpus,
        "concurrency_per_replica": option.concurrency,
        "max_rate_rps": option.rate_rps,
        "performance": performance(option.prediction),
        "memory_bytes": to_json(made.sizing.memory),
        "cost": to_json(option.cost) if option.cost else None,
        "is_doubtful": option.is_doubtful,
        "quality": {name: measured[name] for name in ("ppl", "ppl_base", "kl", "top1")} if measured else None,
    }


def _rejected(each: Rejected, quality: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "gpu": each.gpu,
        "quant": each.quant,
        "parallel": each.parallel,
        "reason": each.reason,
        "miss": each.miss if each.miss != float("inf") else None,
        "would_be": option_row(each.option, quality) if each.option else None,
    }


def curve(points: list[Point], edge: Edge) -> dict[str, Any]:
    """Return a sweep."""
    return {
        "sweep": edge.axis,
        "cliff": {edge.axis: edge.value, "cause": edge.cause, "sentence": edge.sentence},
        "points": [
            {
                edge.axis: point.value,
                "is_beyond_cliff": point.is_beyond_cliff,
                "in_flight": point.prediction.batch,
                **performance(point.prediction),
            }
            for point in points
        ],
    }


def _range(value: Range) -> dict[str, float]:
    return {"low": value.low, "mid": value.mid, "high": value.high}
