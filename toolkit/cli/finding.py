"""`trtk bench --find-max`: the runs of a search, its table, and the report of the best run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli import output, served_build
from toolkit.cli.bench_runs import UNITS, Kept, Series
from toolkit.cli.sweeping import sentences as sweep_sentences

if TYPE_CHECKING:
    from toolkit.bench import Run
    from toolkit.bench.search import Found
    from toolkit.specs import LoadProfile


def find_max(ctx: click.Context, profile: LoadProfile, what: str, *, folder: Path, as_json: bool) -> None:
    """Search, keep every run's report in a folder of its own, and say what the limit is."""
    from toolkit import bench as load_tester
    from toolkit import files
    from toolkit.bench import finding
    from toolkit.errors import ServerError
    from toolkit.specs import to_json

    series, kept = Series(profile), Kept(folder, what, served_build.environment_of(profile))

    def run_once(asked: LoadProfile) -> Run:
        try:
            return series.run(asked)
        except KeyboardInterrupt as error:  # in its warm-up, which measures nothing
            if not kept.reports:
                raise
            kept.was_interrupted = True
            raise ServerError("The search was interrupted.") from error

    def on_run(asked: LoadProfile, run: Run) -> None:
        report = kept.keep(asked, run, has_page=False)
        if report is not None:
            output.note(f"{finding.load_of(asked, what):g} {UNITS[what]}: {_verdict(report.document)}")

    found = finding.find(profile, what, run_once, on_run=on_run)
    reports = kept.reports
    document = {
        "what": what,
        "slos": list(profile.slos),
        **{key: value for key, value in to_json(found).items() if key != "tried"},
        "at_80_percent": finding.with_headroom(found.best, what),
        "tried": [_row(one, reports[one.load].document) for one in found.tried if one.load in reports],
        "interrupted": kept.was_interrupted,
        "stop_reason": series.is_gone_because,
    }
    if found.best in reports:
        load_tester.write(reports[found.best], kept.folder_of(found.best))
    page = folder / "search.html"
    files.write_text(page, _page(what, profile, document, kept))
    files.write_json(folder / "search.json", document)
    if as_json:
        output.document(document)
    else:
        _show(document, page)
    _end(ctx, found, profile, document)


def _page(what: str, profile: LoadProfile, document: Mapping[str, Any], kept: Kept) -> str:
    """Return the curve that the runs of the search make, with what was found above it."""
    from toolkit.bench import pages, sweeping

    curve = sweeping.curve(what, [sweeping.step_of(load, report.document) for load, report in kept.reports.items()])
    said = [*_sentences(document), *sweep_sentences(curve)]
    return pages.of_sweep(curve, profile, said, has_pages=(document["best"],))


def _row(one: Any, report: Mapping[str, Any]) -> dict[str, Any]:
    row = dataclasses.asdict(one)
    row["excess"] = row["excess"] if row["excess"] != float("inf") else None
    names = (
        "output_token_throughput_tps",
        "request_throughput_rps",
        "goodput_rps",
        "limited_by",
        "valid",
        "backlog_growth_rps",
    )
    return row | {name: report[name] for name in names} | {"slo": report["slo"]}


def _verdict(report: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{row['name']} p{row['percentile']:g} {_ms(row)} of {row['target_ms']:g} ms ({row['verdict']})"
        for row in report["slo"]
    )


def _ms(row: dict[str, Any]) -> str:
    return "endless" if row["measured_ms"] is None else f"{row['measured_ms']:,.0f}"


def _show(document: Mapping[str, Any], page: Path) -> None:
    unit = UNITS[document["what"]]
    objectives = (
        [f"{row['name']} p{row['percentile']:g}" for row in document["tried"][0]["slo"]] if document["tried"] else []
    )
    columns = (unit, *objectives, "tokens/s", "verdict")
    rows = [
        [
            f"{one['load']:g}",
            *(f"{_ms(row)} ms" for row in one["slo"]),
            f"{one['output_token_throughput_tps']:,.0f}",
            ("met" if one["is_met"] else "missed") + ("" if one["certainty"] else ", within noise"),
        ]
        for one in sorted(document["tried"], key=lambda one: one["load"])
    ]
    output.table("the search", columns, rows, right=columns[:-1])
    for sentence in _sentences(document):
        output.text(sentence)
    output.text(f"page  {page}")


def _sentences(document: Mapping[str, Any]) -> list[str]:
    unit = UNITS[document["what"]]
    said = [_sentence(document, unit)]
    if document["at_80_percent"] is not None:
        said.append(f"With a fifth kept free, as the 80 % rule has it: {document['at_80_percent']:g} {unit}.")
    if beyond := [one for one in document["tried"] if not one["is_met"]]:
        first = min(beyond, key=lambda one: one["load"])
        why = ", ".join(first["limited_by"]) or "nothing that the server's metrics or the client show"
        said.append(f"At {first['load']:g} {unit}: {why}.")
    return said


def _sentence(document: Mapping[str, Any], unit: str) -> str:
    best, low, high = document["best"], document["low"], document["high"]
    if best is None:
        return "Not even the lowest load meets the objectives."
    if not document["is_bracketed"]:
        return f"{best:g} {unit} still meets the objectives: the limit is above."
    sure = f"met for sure up to {low:g}" if low else "met for sure nowhere: too few requests"
    against = f"missed for sure from {high:g}" if high else "missed for sure nowhere: too few requests"
    return f"The most that meets the objectives: {best:g} {unit} ({sure}, {against}; 95 % confidence)."


def _end(ctx: click.Context, found: Found, profile: LoadProfile, document: Mapping[str, Any]) -> None:
    from toolkit.errors import GateError, ServerError

    if document["interrupted"]:
        output.note("Interrupted: the table has what was measured until then.")
        ctx.exit(130)
    if (
        document["stop_reason"]
        and not document["tried"][-1]["is_met"]
        and "stopped answering" in document["stop_reason"]
    ):
        raise ServerError(document["stop_reason"], hint="See `trtk status` and `trtk logs`.")
    if found.best is None:
        raise GateError(
            f"No load meets {', '.join(profile.slos)}; the lowest that was tried is {found.tried[-1].load:g}.",
            hint="Allow more time, or see `trtk plan` for a faster set-up.",
        )
