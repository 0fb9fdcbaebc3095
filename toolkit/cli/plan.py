"""trtk plan: does it fit, how fast will it be, what will it cost, which card to rent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli import output, plan_options
from toolkit.cli.engine_options import FLOWS
from toolkit.cli.source_options import KEEP
from toolkit.errors import PlanInfeasible, UsageError

if TYPE_CHECKING:
    from toolkit.cli.plan_making import Answer, Question
    from toolkit.plan.recommend import Recommendation

EPILOG = output.examples(
    "trtk plan demo --gpu a4500 --quant int4 --isl 1024 --osl 256 --concurrency 16 --slo ttft=500ms --slo itl=50ms",
    "trtk plan ./config.json --users 500 --slo ttft=500ms --html plan.html",
)
#: What --compare compares when it names nothing.
COMPARED = "a4500,l4,rtx-4090,a10g,h100"


@click.command(epilog=EPILOG)
@click.argument("model", required=False)
@click.option("--gpu", metavar="NAME", help="Card to plan for, or `cpu`; without one, cards are recommended.")
@click.option("--quant", metavar="NAME", help="`trtk quants`, or keep: as the source is; without one, the cheapest.")
@plan_options.workload_options
@plan_options.load_options
@plan_options.price_options
@click.option("--tp", type=click.IntRange(min=1), default=1, help="Ranks that share each layer.")
@click.option("--pp", type=click.IntRange(min=1), default=1, help="Ranks that take the layers in turn.")
@click.option("--ep", type=click.IntRange(min=1), default=1, help="Of --tp, ranks that share out experts.")
@click.option("--max-batch-size", type=click.IntRange(min=1), help="Requests in flight.")
@click.option("--max-seq-len", type=click.IntRange(min=16), help="Tokens of prompt and answer together.")
@click.option("--max-num-tokens", type=click.IntRange(min=16), help="Tokens of one engine step.")
@click.option(
    "--kv-cache",
    type=click.Choice(["auto", "none", "fp8", "int8"]),
    default="auto",
    show_default=True,
    help="How keys and values are cached.",
)
@click.option("--flow", type=click.Choice(FLOWS), default="auto", show_default=True, help="How the model is run.")
@click.option("--release", default="auto", show_default=True, metavar="TAG", help="Triton release; `trtk releases`.")
@click.option("--recommend", is_flag=True, help="Rank cards, formats and ranks by cost; --gpu may name several.")
@click.option(
    "--compare",
    is_flag=False,
    flag_value=COMPARED,
    metavar="[CARDS]",
    help="The best of each of these cards: a4500,l4,4090,a10g,h100.",
)
@click.option(
    "--sweep",
    metavar="concurrency=1..256",
    help="Predictions as one thing grows, and the latency cliff: concurrency, rate=0.5..20, isl=128..8192 or osl=…",
)
@click.option("--explain", is_flag=True, help="Why each setting is what it is, and what a change would do.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with plots as well.")
@click.option(
    "--verify",
    is_flag=False,
    flag_value="",
    metavar="[SERVER|LOG]",
    help="Compare the plan of a running server with its boot log and metrics; of a log file, the plan of MODEL.",
)
@output.json_option
def plan(model: str | None, as_json: bool, **options: Any) -> None:
    """Plan MODEL: does it fit, how fast will it be, what will it cost, which card should be rented.

    MODEL is `demo`, a config.json, a folder with one, or a hub id; no weights are fetched. Nothing is built.
    """
    from toolkit.cli.plan_making import question_of

    verified = options.pop("verify")
    if verified is not None and not Path(verified).is_file():
        _verify_server(verified, as_json=as_json)
        return
    if model is None:
        raise UsageError("There is no MODEL.", hint="trtk plan demo --gpu a4500")
    question = question_of(model, options)
    if verified:
        _verify_log(question, Path(verified), as_json=as_json)
    elif options["sweep"]:
        _sweep(question, as_json=as_json)
    elif options["compare"] is not None or options["recommend"] or "," in (options["gpu"] or ","):
        _recommend(question, as_json=as_json)
    else:
        _one(question, as_json=as_json)


def _one(question: Question, *, as_json: bool) -> None:
    from toolkit.cli import plan_document, plan_making, plan_views

    ranked = None if question.options["quant"] else _ranked(question)
    try:
        answer = _answer(question, ranked)
    except PlanInfeasible as refusal:
        if as_json:
            output.document(plan_document.refusal(question, refusal))
        raise
    is_explained = question.options["explain"]
    if as_json:
        formats = plan_document.formats(ranked, plan_making.quality(question.name)) if ranked else {}
        output.document({**plan_document.plan(question, answer, is_explained=is_explained), **formats})
    else:
        plan_views.show(question, answer, is_explained=is_explained)
        if ranked:
            plan_views.formats(question, ranked, plan_making.quality(question.name))
    _page(question, lambda pages: pages.of_plan(question, answer))
    faults = plan_document.faults(question, answer)
    if faults:
        raise PlanInfeasible(faults[0], hint="`trtk plan MODEL` without --gpu names cards that carry it.")


def _ranked(question: Question) -> Recommendation:
    """Return the formats on the asked card, by cost."""
    from toolkit.cli import plan_making

    return plan_making.recommendation(question, [question.options["gpu"]])


def _answer(question: Question, ranked: Recommendation | None = None) -> Answer:
    """Return the plan on the asked card, in the asked format or in the first that carries the load."""
    from toolkit import quant
    from toolkit.cli import plan_making

    gpu, named = question.options["gpu"], question.options["quant"]
    if named == KEEP:
        recipe, size = plan_making.kept(question, gpu)
        return plan_making.answer(question, gpu, recipe, weights_bytes=size)
    if named:
        return plan_making.answer(question, gpu, quant.get(named))
    found = ranked or _ranked(question)
    best = found.options[0].candidate.recipe if found.options else _least_bad(found)
    output.note(
        f"--quant {best.name}: {'the cheapest here that carries the load' if found.options else 'the nearest'}."
    )
    return plan_making.answer(question, gpu, best)


def _least_bad(found: Any) -> Any:
    from toolkit import quant

    return quant.get(found.nearest.quant if found.nearest else "fp16")


def _recommend(question: Question, *, as_json: bool) -> None:
    from toolkit.cli import plan_document, plan_making, plan_views

    options = question.options
    cards = plan_making.cards_of(options["gpu"] if options["compare"] is None else options["compare"], question)
    found = plan_making.recommendation(question, cards)
    if options["compare"] is not None:
        found = plan_making.best_of_each(found)
    quality = plan_making.quality(question.name)
    if as_json:
        output.document(plan_document.recommendation(question, found, quality))
    else:
        plan_views.recommended(question, found, quality)
    _page(question, lambda pages: pages.of_recommendation(question, found, quality))
    if not found.options and found.nearest:
        raise PlanInfeasible("None of these cards carries the load.", hint=plan_views.nearest(found.nearest))


def _sweep(question: Question, *, as_json: bool) -> None:
    from toolkit.cli import plan_document, plan_making, plan_views
    from toolkit.plan import sweep

    axis = sweep.axis_of(question.options["sweep"])
    if not question.options["gpu"]:
        raise UsageError("--sweep is of one card, and --gpu names none.", hint="Add --gpu a4500.")
    load, options = _swept(question, axis)
    sized = load if axis.name in {sweep.ISL, sweep.OSL} else replace(load, concurrency=None, rate_rps=None)
    wanted = replace(question.wanted, workload=sized)
    made = _answer(replace(question, workload=sized, wanted=wanted, options=options)).candidate
    predict = plan_making.predictor()
    edge = sweep.edge_of(made, load, axis, predict)
    points = sweep.over(made, load, axis, edge=edge, predict=predict)
    if as_json:
        output.document(plan_document.curve(points, edge))
    else:
        plan_views.curve(points, edge)
    _page(question, lambda pages: pages.of_sweep(question, points, edge))


def _swept(question: Question, axis: Any) -> tuple[Any, dict[str, Any]]:
    """Return the requests of a sweep, at their longest, and the options that size a server for them."""
    from toolkit.cli import plan_options
    from toolkit.plan import sweep

    load = question.workload
    if axis.name in {sweep.CONCURRENCY, sweep.RATE}:
        # The curve is of requests of these lengths, so the server is sized for them, said or not.
        return replace(load, concurrency=None, rate_rps=None), {
            **question.options,
            "isl": question.options["isl"] or f"{load.isl:.0f}",
        }
    if question.options[axis.name] or question.options["trace"]:
        given = axis.name if question.options[axis.name] else "trace"
        raise UsageError(f"--sweep {axis.name} and --{given} both say it.", hint=f"Leave --{given} out.")
    options = {**question.options, axis.name: f"{axis.high:.0f}"}
    return plan_options.workload_of(options, question.model), options


def _verify_server(name: str, *, as_json: bool) -> None:
    from toolkit.cli import plan_verify

    title, rows = plan_verify.server(name)
    if as_json:
        output.document(plan_verify.document(title, rows))
    else:
        plan_verify.show(title, rows)


def _verify_log(question: Question, path: Path, *, as_json: bool) -> None:
    from toolkit.cli import plan_verify

    if not question.options["gpu"]:
        raise UsageError("A log is compared with the plan of one card, and --gpu names none.", hint="Add --gpu a4500.")
    rows = plan_verify.log(path, _answer(question))
    if as_json:
        output.document(plan_verify.document(str(path), rows))
    else:
        plan_verify.show(str(path), rows)


def _page(question: Question, made: Callable[[Any], str]) -> None:
    """Write the page that was asked for."""
    path = question.options["html"]
    if path is None:
        return
    from toolkit.cli import plan_pages
    from toolkit.files import write_text

    write_text(path, made(plan_pages))
    output.note(f"{path} is written.")
