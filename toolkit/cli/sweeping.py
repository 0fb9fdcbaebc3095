"""`trtk bench --sweep`: run after run with more load, a table, the knee and the cliff, and a page with all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli import output, served_build
from toolkit.cli.bench_runs import UNITS, Kept, Series

if TYPE_CHECKING:
    from toolkit.bench.sweeping import Curve, Step
    from toolkit.specs import LoadProfile

#: A step of a sweep asks for less than a search: the curve over all steps is what is looked at.
REQUESTS_PER_SLOT = 6
FEWEST_REQUESTS = 40
RATE_STEP_S = 10.0


def sweep(
    ctx: click.Context, profile: LoadProfile, text: str, *, folder: Path, as_json: bool, requests: int | None
) -> None:
    """Run every load, keep each report in a folder of its own, and say where the knee and the cliff are."""
    from toolkit import files
    from toolkit.bench import pages, sweeping

    what, loads = sweeping.parse(text)
    series, kept = Series(profile), Kept(folder, what, served_build.environment_of(profile))
    steps, stop_reason = _steps(profile, loads, series=series, kept=kept, requests=requests)
    curve = sweeping.curve(what, steps)
    document = document_of(curve, profile, was_interrupted=kept.was_interrupted, stop_reason=stop_reason)
    page = folder / "sweep.html"
    loads = tuple(kept.reports)
    files.write_text(page, pages.of_sweep(curve, profile, document["said"], has_pages=loads, stop_reason=stop_reason))
    files.write_json(folder / "sweep.json", document)
    if as_json:
        output.document(document)
    else:
        _show(curve, page)
    _end(ctx, document)


def _steps(
    profile: LoadProfile, loads: tuple[float, ...], *, series: Series, kept: Kept, requests: int | None
) -> tuple[list[Step], str | None]:
    from toolkit.bench import finding, sweeping
    from toolkit.errors import ServerError

    steps: list[Step] = []
    if profile.duration_s is None and kept.what == finding.RATE:
        profile = dataclasses.replace(profile, duration_s=RATE_STEP_S)
    for load in loads:
        asked = finding.at(profile, kept.what, load, per_slot=REQUESTS_PER_SLOT, fewest=requests or FEWEST_REQUESTS)
        try:
            run = series.run(asked)
        except (ServerError, KeyboardInterrupt) as error:  # an interrupt of its warm-up, which measures nothing
            if not steps:
                raise
            kept.was_interrupted = isinstance(error, KeyboardInterrupt)
            return steps, series.is_gone_because
        report = kept.keep(asked, run, has_page=True)
        if report is not None and not run.is_interrupted:
            steps.append(sweeping.step_of(load, report.document))
            output.note(f"{load:g} {UNITS[kept.what]}: {_said(steps[-1])}")
        if run.is_interrupted or run.stop_reason:
            return steps, run.stop_reason
    return steps, None


def _said(step: Step) -> str:
    said = f"{step.tokens_per_s:,.0f} tokens/s, TTFT p95 {_ms(step.ttft_p95_ms)} ms, ITL p95 {_ms(step.itl_p95_ms)} ms"
    return f"{said}, {step.failed_share:.0%} failed" if step.failed_share else said


def document_of(
    curve: Curve, profile: LoadProfile, *, was_interrupted: bool, stop_reason: str | None
) -> dict[str, Any]:
    """Return sweep.json."""
    from toolkit.specs import to_json

    return {
        "what": curve.what,
        "model": profile.model,
        "url": profile.url,
        "knee": curve.knee,
        "is_knee_inside": curve.is_knee_inside,
        "cliff": to_json(curve.cliff) if curve.cliff else None,
        "steps": [to_json(step) for step in curve.steps],
        "said": sentences(curve),
        "interrupted": was_interrupted,
        "stop_reason": stop_reason,
    }


def sentences(curve: Curve) -> list[str]:
    """Say what a sweep found."""
    unit, found = UNITS[curve.what], []
    if len(curve.steps) < 2:
        return [f"{len(curve.steps) or 'No'} load was measured: that is no curve."]
    highest = curve.steps[-1]
    if curve.knee is None:
        found.append("Nothing succeeded, so there is no knee.")
    elif curve.is_knee_inside:
        found.append(f"Knee at {curve.knee:g} {unit}: more load adds more to latency than to throughput.")
    else:
        found.append(f"No knee up to {highest.load:g} {unit}: throughput still grows faster than latency.")
    if cliff := curve.cliff:
        after = next(step for step in curve.steps if step.load == cliff.first_bad)
        found.append(
            f"Cliff between {cliff.last_good:g} and {cliff.first_bad:g} {unit}: {'; '.join(cliff.signs)}. "
            f"What happened: {cliff.cause} ({'; '.join(after.evidence)})."
        )
    else:
        found.append(f"No cliff up to {highest.load:g} {unit}.")
    return found


def _show(curve: Curve, page: Path) -> None:
    columns = (UNITS[curve.what], "tokens/s", "req/s", "TTFT p50", "TTFT p95", "ITL p95", "")
    rows = [
        [
            f"{step.load:g}",
            f"{step.tokens_per_s:,.0f}",
            f"{step.requests_per_s:,.2f}",
            _ms(step.ttft_p50_ms),
            _ms(step.ttft_p95_ms),
            _ms(step.itl_p95_ms),
            mark_of(curve, step) + (f" {step.failed_share:.0%} failed" if step.failed_share else ""),
        ]
        for step in curve.steps
    ]
    output.table("the sweep, latencies in ms", columns, rows, right=columns[:-1])
    for sentence in sentences(curve):
        output.text(sentence)
    output.text(f"page  {page}")


def mark_of(curve: Curve, step: Step) -> str:
    """Return what a load is on the curve."""
    if curve.cliff and step.load == curve.cliff.first_bad:
        return "cliff"
    return "knee" if curve.is_knee_inside and step.load == curve.knee else ""


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _end(ctx: click.Context, document: Mapping[str, Any]) -> None:
    from toolkit.errors import ServerError

    if document["interrupted"]:
        output.note("Interrupted: the page has what was measured until then.")
        ctx.exit(130)
    if document["stop_reason"]:
        raise ServerError(document["stop_reason"], hint="See `trtk status` and `trtk logs`.")
    if all(step["tokens_per_s"] == 0 for step in document["steps"]):
        raise ServerError("No request succeeded at any load.", hint="See `trtk logs`.")
