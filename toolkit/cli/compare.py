"""`trtk compare A B`: what changed between two load tests, and whether it is more than noise."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit.cli import output

if TYPE_CHECKING:
    from toolkit.bench.comparing import Change
    from toolkit.bench.reading import Result


@click.command(
    epilog=output.examples(
        "trtk compare reports/before reports/after", "trtk compare reports/mine aiperf-artifacts/run"
    )
)
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option(
    "--tolerate", type=click.FloatRange(0), default=5.0, show_default=True, metavar="PCT", help="Smaller is the same."
)
@output.json_option
def compare(before: Path, after: Path, tolerate: float, as_json: bool) -> None:
    """Compare two load tests; exit 7 when AFTER is worse.

    BEFORE and AFTER are folders of `trtk bench`, or results of aiperf, genai-perf or `vllm bench serve`.
    """
    from toolkit.bench import comparing, reading
    from toolkit.errors import GateError

    results = [reading.read(path) for path in (before, after)]
    changes = comparing.compare(*results, tolerated_pct=tolerate)
    worse = [change.metric for change in changes if change.verdict == "worse"]
    warnings = _warnings(results)
    if as_json:
        verdict = "worse" if worse else "better" if any(c.verdict == "better" for c in changes) else "same"
        document = {
            "before": str(before),
            "after": str(after),
            "tolerated_pct": tolerate,
            "changes": [dataclasses.asdict(change) for change in changes],
            "verdict": verdict,
            "warnings": warnings,
        }
        output.document(document)
    else:
        _show(results, changes)
        for warning in warnings:
            output.warn(warning)
    if worse:
        raise GateError(f"{after} is worse than {before} in: {', '.join(worse)}.", hint="Look at both report.html.")


def _show(results: list[Result], changes: list[Change]) -> None:
    columns = ("", "before", "after", "change", "95 %", "verdict")
    rows = [
        [
            f"{change.metric.replace('_ms', '').replace('output_token_throughput_tps', 'tokens/s')}",
            f"{change.before:,.1f}",
            f"{change.after:,.1f}",
            f"{change.change_pct:+.1f} %",
            f"{change.low_pct:+.1f} to {change.high_pct:+.1f}",
            change.verdict,
        ]
        for change in changes
    ]
    output.table(f"{results[0].name} → {results[1].name}", columns, rows, right=columns[1:5])


def _warnings(results: list[Result]) -> list[str]:
    found = [
        f"{result.name} is marked invalid: {next(iter(result.document['warnings']), 'it says not why.')}"
        for result in results
        if result.document and not result.document["valid"]
    ]
    profiles = [result.document.get("profile", {}) for result in results]
    differing = [
        f"{key} ({profiles[0][key]} and {profiles[1][key]})"
        for key in ("model", "concurrency", "isl", "osl", "arrival", "is_streaming", "turns", "shared_prefix")
        if all(profiles) and profiles[0].get(key) != profiles[1].get(key)
    ]
    if all(profiles) and profiles[0].get("stages") != profiles[1].get("stages"):
        differing.append("the rate")
    if differing:
        found.append(f"The loads differ in {', '.join(differing)}: the change may come from that.")
    if len({result.tool for result in results}) > 1:
        tools = " and ".join(result.tool for result in results)
        found.append(f"The results are of {tools}, which count some things in other ways.")
    return found
