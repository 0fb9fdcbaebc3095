"""The report's numbers for a spreadsheet: a row for each metric, and a row for each request."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from toolkit.bench import latency
from toolkit.bench.definitions import DEFINITIONS
from toolkit.specs import RequestRecord

STATISTICS = ("mean", "min", "p50", "p90", "p95", "p99", "max", "std")
#: Long, and of another form: report.json has them.
NO_NUMBERS = {"server", "server_metrics", "turns"}
LATENCIES = (
    ("ttft_ms", latency.ttft_ms),
    ("itl_ms", latency.itl_ms),
    ("tpot_ms", latency.tpot_ms),
    ("e2e_latency_ms", latency.e2e_latency_ms),
    ("send_lag_ms", latency.send_lag_ms),
)
RECORDED = (
    "request_id",
    "turn",
    "scheduled_s",
    "sent_s",
    "end_s",
    "outcome",
    "error",
    "input_tokens",
    "output_tokens",
    "asked_tokens",
    "chunks",
)


def metrics(document: Mapping[str, Any]) -> str:
    """Return report.csv: each metric of a report with its unit, as one value or as a distribution."""
    rows = (
        (name, unit, value, *(statistics.get(one) for one in STATISTICS))
        for metric, (unit, _) in DEFINITIONS.items()
        if metric not in NO_NUMBERS
        for name, value, statistics in _values(metric, document.get(metric))
    )
    return _text(("metric", "unit", "value", *STATISTICS), rows)


def requests(records: Sequence[RequestRecord]) -> str:
    """Return requests.csv: what was recorded of each request, and its latencies in milliseconds."""
    rows = (
        (*(getattr(record, name) for name in RECORDED), *(measure(record) for _, measure in LATENCIES))
        for record in records
    )
    return _text((*RECORDED, *(name for name, _ in LATENCIES)), rows)


def _values(name: str, value: Any) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yield (name, value, statistics) of a metric and of all that is in it."""
    if isinstance(value, Mapping) and "p50" in value:
        yield name, None, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _values(f"{name}.{key}", inner)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _values(f"{name}.{number}", inner)
    else:
        yield name, value, {}


def _text(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return made.getvalue()
