"""The report's files: requests.jsonl, the two tables in CSV, report.html, and report.json last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from toolkit import files, templating
from toolkit.bench import tables
from toolkit.bench.tables import STATISTICS
from toolkit.specs import BenchReport, RequestRecord, to_json

HEADLINES = (
    ("output_token_throughput_tps", "output tokens/s", 1),
    ("request_throughput_rps", "requests/s", 2),
    ("ttft_ms", "TTFT p50, ms", 1),
    ("itl_ms", "ITL p50, ms", 2),
    ("e2e_latency_ms", "end to end p50, ms", 0),
)
LATENCY_ROWS = (
    ("ttft_ms", "Time to first token"),
    ("itl_ms", "Inter-token latency"),
    ("tpot_ms", "Time per output token"),
    ("e2e_latency_ms", "End to end"),
    ("send_lag_ms", "Send lag of the client"),
)
COST_ROWS = (
    ("per_million_output_tokens", "a million output tokens, which pay for all", 3),
    ("input_apart_per_million", "a million input tokens, by their share of the time", 3),
    ("output_apart_per_million", "a million output tokens, by theirs", 3),
    ("per_million_tokens", "a million tokens, in and out alike", 3),
    ("per_thousand_requests", "a thousand requests", 3),
    ("output_tokens_per_unit", "output tokens for one", 0),
    ("tokens_per_unit", "tokens for one, in and out", 0),
    ("requests_per_hour", "requests per hour", 0),
)


def write(report: BenchReport, folder: Path, *, has_page: bool = True) -> Path:
    """Write the files, each by rename, and return the path of the page; drawing it is most of the work."""
    rows = (json.dumps(to_json(record), ensure_ascii=False) for record in report.records)
    files.write_text(folder / "requests.jsonl", "".join(row + "\n" for row in rows))
    files.write_text(folder / "requests.csv", tables.requests(report.records))
    files.write_text(folder / "report.csv", tables.metrics(report.document))
    try:
        if has_page:
            files.write_text(folder / "report.html", html(report))
    finally:  # numbers that took long to measure outlive a Ctrl-C while they are drawn
        files.write_json(folder / "report.json", report.document)
    return folder / "report.html"


def html(report: BenchReport) -> str:
    """Return the self-contained page."""
    has_plots = find_spec("matplotlib") is not None
    values = {
        "report": report.document,
        "headlines": [_headline(report.document, *headline) for headline in HEADLINES],
        "latency_rows": LATENCY_ROWS,
        "statistics": STATISTICS,
        "plots": _plots(report) if has_plots else [],
        "has_plots": has_plots,
        "load": load_said(report.document["profile"]),
        "cost_rows": COST_ROWS,
        "errors": _errors(report.records),
    }
    return templating.render("report/report.html.j2", values)


def load_said(profile: dict[str, Any]) -> str:
    """Return the load in a line."""
    amount = f"{profile['duration_s']:g} s" if profile["requests"] is None else f"{profile['requests']} requests"
    way = "streaming" if profile["is_streaming"] else "not streaming"
    return ", ".join([amount, shape_said(profile), *_contents_said(profile), way])


def shape_said(profile: Mapping[str, Any]) -> str:
    """Return when requests were sent, in a few words."""
    cap = f", at most {profile['concurrency']} in flight" if profile["is_capped"] else ""
    if profile["arrival"] == "trace":
        return f"the times of a trace{cap}"
    if not profile["stages"]:
        return f"{profile['concurrency']} in flight"
    rates = [
        f"{stage['start_rps']:g}"
        if stage["start_rps"] == stage["end_rps"]
        else f"{stage['start_rps']:g} to {stage['end_rps']:g}"
        for stage in profile["stages"]
    ]
    return f"{', then '.join(rates)} requests/s ({profile['arrival']}){cap}"


def _contents_said(profile: dict[str, Any]) -> list[str]:
    if profile["trace"]:
        return [f"the lengths of {profile['trace']} requests of a trace"]
    given = f"{profile['prompts']} given prompts" if profile["prompts"] else ""
    exactly = "exactly" if profile.get("tokenizer") else "about"
    said = [
        given or f"{profile['isl_lengths'] or exactly + ' ' + str(profile['isl'])} tokens in",
        f"{profile['osl_lengths'] or profile['osl']} tokens out",
    ]
    if turns := profile.get("turns"):
        think_s = profile.get("think_s")
        said.append(f"conversations of {turns} turns" + (f", {think_s} s to think" if think_s else ""))
    said += [f"{profile['shared_prefix']:.0%} of the input shared"] if profile["shared_prefix"] else []
    said += [f"{profile['cancel_share']:.0%} cancelled"] if profile["cancel_share"] else []
    return said


def _errors(records: Sequence[RequestRecord]) -> list[tuple[str, int, float, str]]:
    """Return (kind, how many, when the first was due, what it said), the most frequent first."""
    kinds: dict[str, list[RequestRecord]] = {}
    for record in records:
        if record.error:
            kinds.setdefault(record.error, []).append(record)
    rows = []
    for kind, failed in kinds.items():
        first = min(failed, key=lambda record: record.scheduled_s)
        rows.append((kind, len(failed), first.scheduled_s, first.message or ""))
    return sorted(rows, key=lambda row: -row[1])


def _headline(document: Any, key: str, label: str, digits: int) -> tuple[str, str]:
    value = document[key]["p50"] if isinstance(document[key], dict) else document[key]
    return label, "-" if value is None else f"{value:,.{digits}f}"


def _plots(report: BenchReport) -> list[Any]:
    from toolkit.bench import plots

    samples = report.document.get("server_metrics", {}).get("samples", [])
    return list(plots.draw(report.records, duration_s=report.document["duration_s"], samples=samples))
