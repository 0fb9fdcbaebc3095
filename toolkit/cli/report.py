"""`trtk report RESULT...`: the page of one load test again, or one page for several."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from toolkit.cli import output


@click.command(
    epilog=output.examples("trtk report reports/ensemble-c16-*", "trtk report aiperf-artifacts/run -o run.html")
)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "page", type=click.Path(dir_okay=False, path_type=Path), default=Path("report.html"),
    show_default=True, help="The page.",
)  # fmt: skip
@output.json_option
def report(results: tuple[Path, ...], page: Path, as_json: bool) -> None:
    """Draw the page of a load test again, or one page for several: which of them no other beats.

    RESULTS are folders of `trtk bench`, or results of aiperf, genai-perf or `vllm bench serve`.
    """
    from toolkit import files
    from toolkit.bench import reading, several

    read = [reading.read(path) for path in results]
    files.write_text(page, several.page(read))
    rows = several.rows(read)
    if as_json:
        output.document({"page": str(page), "runs": [dataclasses.asdict(row) for row in rows]})
        return
    columns = ("run", "tokens/s", "TTFT p50", "TTFT p95", "ITL p50", "failed", "front")
    shown = [
        [
            row.name,
            f"{row.tokens_per_s:,.1f}",
            _ms(row.ttft_p50_ms),
            _ms(row.ttft_p95_ms),
            _ms(row.itl_p50_ms),
            str(row.failed),
            "yes" if row.is_on_front else "",
        ]
        for row in rows
    ]
    output.table(f"{len(rows)} load tests, latencies in ms", columns, shown, right=columns[1:6])
    output.text(f"page  {page}")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
