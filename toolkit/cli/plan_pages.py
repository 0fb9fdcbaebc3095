"""`trtk plan --html`: one page with its figures inside, for what was planned, recommended or swept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit import __version__, templating
from toolkit.cli import plan_charts, plan_document, plan_making, plan_views
from toolkit.cli.plan_charts import Axes, Curve
from toolkit.plan import sweep

if TYPE_CHECKING:
    from toolkit.cli.plan_making import Answer, Question
    from toolkit.plan.recommend import Option, Recommendation
    from toolkit.plan.sweep import Edge, Point

TEMPLATE = "plan/report.html.j2"
COLOURS = {
    "weights": "var(--first)",
    "activations": "var(--second)",
    "runtime": "var(--soft)",
    "kv_cache": "var(--third)",
    "free": "var(--grid)",
}


def of_plan(question: Question, answer: Answer) -> str:
    """Return the page of one plan, with its curve over requests in flight."""
    made = answer.candidate
    memory = made.sizing.memory
    parts = [
        (f"{name.replace('_', ' ')} {getattr(memory, name) / plan_views.GIB:.2f}", getattr(memory, name), colour)
        for name, colour in COLOURS.items()
    ]
    axis = sweep.Axis(name=sweep.CONCURRENCY, low=1, high=max(8, 2 * sweep.cliff_of(made).concurrency))
    predict = plan_making.predictor()
    edge = sweep.edge_of(made, question.workload, axis, predict)
    points = sweep.over(made, question.workload, axis, edge=edge, predict=predict)
    cost, found = plan_document.cost_of(question, answer), answer.prediction
    cards = [
        (f"{found.output_tps.mid:,.0f}", "tokens a second"),
        (f"{found.ttft_ms.mid:,.0f} ms", "to the first token"),
        (f"{found.tpot_ms.mid:.1f} ms", "for each further one"),
        (str(made.sizing.max_concurrency), "requests at once"),
    ]
    if cost:
        cards.append((f"{cost.per_month:,.0f} {cost.currency}", "a month"))
    changes = [
        (knob.name, knob.change, f"{knob.memory_bytes / plan_views.GIB:+.2f}", f"{knob.kv_tokens:+d}")
        for knob in answer.knobs
    ]
    tables = [
        ("What a change would do", ("setting", "change", "GiB", "KV tokens"), changes),
        (
            "Why",
            ("setting", "value", "reason"),
            [(choice.name, choice.value, choice.reason) for choice in made.sizing.choices],
        ),
    ]
    figures = [("Memory of a card, GiB", "", plan_charts.stacked_bar(parts)), *_curves(points, edge)]
    title = f"{plan_views.title(question.name)}: {made.recipe.name} on {made.setup.gpu.title}"
    notes = [*plan_document.faults(question, answer), *plan_document.warnings(question, answer)]
    return _page(title, question, cards=cards, notes=notes, figures=figures, tables=tables)


def of_sweep(question: Question, points: list[Point], edge: Edge) -> str:
    """Return the page of a sweep."""
    return _page(
        f"{plan_views.title(question.name)}: over {sweep.LABELS[edge.axis]}",
        question,
        figures=_curves(points, edge),
        notes=[edge.sentence],
    )


def of_recommendation(question: Question, found: Recommendation, quality: dict[str, dict[str, Any]]) -> str:
    """Return the page of what carries the load, and why the rest does not."""
    columns = ("card", "quant", "ranks", "replicas", "each", "TTFT ms", "TPOT ms", "tokens/s", "cost", "KL")
    rows = [plan_views.row(option, quality) for option in found.options]
    rejected = [(each.gpu, each.quant, each.parallel, each.reason) for each in found.rejected]
    tables = [
        ("What carries the load, cheapest first", columns, rows),
        ("Rejected", ("card", "quant", "ranks", "reason"), rejected),
    ]
    figures = []
    priced = [option for option in found.options if option.cost]
    if priced:
        figures.append(("Cost against time per token", "The line is the Pareto front.", _front(priced, found.front)))
    notes = [] if found.options or not found.nearest else [plan_views.nearest(found.nearest)]
    return _page(
        f"{plan_views.title(question.name)}: which card", question, figures=figures, tables=tables, notes=notes
    )


def _curves(points: list[Point], edge: Edge) -> list[tuple[str, str, str]]:
    marks = []
    if edge.value is not None and points[0].value <= edge.value <= points[-1].value:
        marks = [(edge.value, f"latency cliff: {edge.cause.replace('_', ' ')}")]
    shown = (
        ("Output tokens per second", "output_tps", "var(--third)", False),
        ("Time to the first token, ms", "ttft_ms", "var(--second)", True),
        ("Time per output token, ms", "tpot_ms", "var(--first)", False),
    )
    figures = []
    for title, name, colour, is_log in shown:
        ranges = [(float(point.value), getattr(point.prediction, name)) for point in points]
        line = Curve(
            label=title,
            colour=colour,
            points=[(x, value.mid) for x, value in ranges],
            band=[(x, value.low, value.high) for x, value in ranges],
        )
        axes = Axes(x_label=sweep.LABELS[edge.axis], y_label=title.split(",")[0], is_y_log=is_log, marks=marks)
        figures.append((title, edge.sentence if marks else "", plan_charts.chart([line], axes)))
    return figures


def _front(options: list[Option], front: tuple[Option, ...]) -> str:
    def place(option: Option) -> tuple[float, float]:
        assert option.cost, "only options with a price are drawn"
        return option.cost.per_month, option.prediction.tpot_ms.mid

    currency = options[0].cost.currency if options[0].cost else ""
    every = Curve(label="", colour="var(--soft)", points=[place(option) for option in options], has_dots=True)
    best = Curve(label="", colour="var(--first)", points=[place(option) for option in front])
    dots = Curve(label="", colour="var(--first)", points=best.points, has_dots=True)
    names = [(*place(option), f"{option.candidate.setup.gpu.name} {option.candidate.recipe.name}") for option in front]
    axes = Axes(x_label=f"{currency} a month", y_label="ms per output token", is_x_log=True, is_y_log=True, names=names)
    return plan_charts.chart([every, best, dots], axes)


def _page(title: str, question: Question, **parts: Any) -> str:
    load = question.workload
    asked = f"{load.concurrency} in flight" if load.concurrency else ""
    asked = f"{load.rate_rps:.3g} requests a second" if load.rate_rps else asked
    about = f"{load.isl:.0f} tokens in, {load.osl:.0f} out{', ' if asked else ''}{asked}"
    values = {"cards": [], "notes": [], "figures": [], "tables": [], **parts}
    return templating.render(TEMPLATE, {"title": title, "about": about, "version": __version__, **values})
