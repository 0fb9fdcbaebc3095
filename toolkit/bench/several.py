"""Several load tests on one page: their numbers, and which of them no other beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from toolkit import templating
from toolkit.bench import report
from toolkit.bench.latency import e2e_latency_ms, itl_ms, percentile, ttft_ms
from toolkit.bench.reading import Result
from toolkit.bench.report import shape_said
from toolkit.errors import UsageError
from toolkit.specs import BenchReport, RequestRecord


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run, as the page shows it."""

    name: str
    tool: str
    load: str
    ok: int
    failed: int
    tokens_per_s: float
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None
    itl_p50_ms: float | None
    e2e_p95_ms: float | None
    cost_per_million: float | None = None  # output tokens, at the price of the run
    currency: str = ""
    joules_per_token: float | None = None
    is_on_front: bool = False  # no other run has both more tokens/s and a lower ITL


def rows(results: Sequence[Result]) -> list[Row]:
    """Return a row per run, in the order of throughput."""
    made = sorted(map(_row, results), key=lambda row: row.tokens_per_s)
    return [replace(row, is_on_front=_is_on_front(row, made)) for row in made]


def _row(result: Result) -> Row:
    ok = [record for record in result.records if record.outcome == "ok"]
    profile = result.document.get("profile")
    cost, energy = (result.document.get(name) or {} for name in ("cost", "energy"))

    def at(share: float, measure: Callable[[RequestRecord], float | None]) -> float | None:
        values = sorted(value for record in ok if (value := measure(record)) is not None)
        return percentile(values, share) if values else None

    return Row(
        name=result.name,
        tool=result.tool,
        load=shape_said(profile) if profile else "",
        ok=len(ok),
        failed=sum(record.outcome == "failed" for record in result.records),
        tokens_per_s=sum(record.output_tokens for record in ok) / max(result.duration_s, 1e-9),
        ttft_p50_ms=at(50, ttft_ms),
        ttft_p95_ms=at(95, ttft_ms),
        itl_p50_ms=at(50, itl_ms),
        e2e_p95_ms=at(95, e2e_latency_ms),
        cost_per_million=cost.get("per_million_output_tokens"),
        currency=cost.get("currency", ""),
        joules_per_token=energy.get("joules_per_output_token"),
    )


def _is_on_front(row: Row, others: Sequence[Row]) -> bool:
    gap = row.itl_p50_ms
    if gap is None:
        return False
    return not any(
        other.itl_p50_ms is not None
        and other.tokens_per_s >= row.tokens_per_s
        and other.itl_p50_ms <= gap
        and (other.tokens_per_s, -other.itl_p50_ms) != (row.tokens_per_s, -gap)
        for other in others
    )


def page(results: Sequence[Result]) -> str:
    """Return the own page of a single run of this tool, or one page for several."""
    only = results[0]
    if len(results) > 1 or not only.document:
        return html(results)
    try:
        return report.html(BenchReport(document=dict(only.document), records=only.records))
    except (templating.missing_names(), KeyError) as error:
        raise UsageError(
            f"The report.json of {only.name} lacks something that its page shows: {error}.",
            hint="Run the load test again, or report it beside another.",
        ) from error


def html(results: Sequence[Result]) -> str:
    """Return the self-contained page."""
    has_plots = find_spec("matplotlib") is not None
    made = rows(results)
    shown = []
    if has_plots:
        from toolkit.bench import plots

        shown = plots.draw_several(made)
    return templating.render("report/several.html.j2", {"rows": made, "plots": shown, "has_plots": has_plots})
