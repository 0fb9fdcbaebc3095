"""The result of a load test in 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.cli import output

LATENCIES = (
    ("ttft_ms", "TTFT"),
    ("itl_ms", "ITL"),
    ("tpot_ms", "TPOT"),
    ("e2e_latency_ms", "end to end"),
    ("send_lag_ms", "send lag"),
)
COLUMNS = ("ms", "mean", "p50", "p90", "p95", "p99", "max")


def show(document: Mapping[str, Any], page: Path) -> None:
    """Print the result."""
    rows = [[label, *(milliseconds(document[key][name]) for name in COLUMNS[1:])] for key, label in LATENCIES]
    rows += _with_failures(document)
    output.table(f"{document['profile']['model']} at {document['profile']['url']}", COLUMNS, rows, right=COLUMNS[1:])
    for name, value in (*_facts(document), *_energy(document), *_cost(document)):
        output.text(f"{name:<26} {value}")
    for row in document["slo"]:
        objective = f"{row['name']} at p{row['percentile']:g}"
        output.text(f"{objective:<26} {measured(row)} of {row['target_ms']:g} ms: {row['verdict']}")
    if document["limited_by"]:
        output.text(f"{'limited by':<26} {'; '.join(document['limited_by'])}")
    for warning in document["warnings"]:
        output.warn(warning)
    output.text(f"{'report':<26} {page}")


def _with_failures(document: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows that count each failed request as endless, where there are any."""
    if not document["requests"]["failed"]:
        return []
    return [
        [label, "", *("endless" if found[name] is None else milliseconds(found[name]) for name in COLUMNS[2:-1]), ""]
        for key, label in (("ttft_ms", "TTFT, all"), ("e2e_latency_ms", "end to end, all"))
        for found in [document["latency_with_failures"][key]]
    ]


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    requests = document["requests"]
    sources = {"server": "the server", "chunks": "the responses with text", "tokenizer": "the tokenizer"}
    found = [
        ("output tokens/s", number(document["output_token_throughput_tps"], 1)),
        ("requests/s", number(document["request_throughput_rps"], 2)),
        ("requests", f"{requests['ok']} ok, {requests['failed']} failed, {requests['cancelled']} cancelled"),
        ("tokens", f"{document['input_tokens']:,} in, {document['output_tokens']:,} out"),
        ("counted by", sources[document["token_count_source"]]),
    ]
    found += [(f"failed: {kind}", str(count)) for kind, count in document["errors"].items()]
    if document["goodput_rps"] is not None:
        found.append(("goodput, requests/s", number(document["goodput_rps"], 2)))
    return found


def _energy(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    energy = document["energy"]
    if not energy:
        return []
    return [("J per output token", f"{number(energy['joules_per_output_token'], 3)} ({energy['mean_power_w']:,.0f} W)")]


def _cost(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    cost = document["cost"]
    if not cost:
        return []
    money, idle = cost["currency"], cost["at_utilization"]

    def both(name: str, digits: int) -> str:
        said = number(cost[name], digits)
        return said if idle is None else f"{said}; {number(idle[name], digits)} at {cost['utilization']:.0%} use"

    rows = [(f"{money} per M output tokens", both("per_million_output_tokens", 3))]
    if cost["input_time_share"] is not None:
        rows += [
            ("  the input apart", f"{both('input_apart_per_million', 3)} per M input tokens"),
            ("  the output apart", f"{both('output_apart_per_million', 3)} per M output tokens"),
        ]
    return [
        *rows,
        (f"output tokens per {money}", both("output_tokens_per_unit", 0)),
        ("requests per hour", both("requests_per_hour", 0)),
        ("at", f"{cost['per_hour']:g} {money}/h, {cost['source']}"),
    ]


def measured(row: Mapping[str, Any]) -> str:
    """Say an objective's percentile; it has no end where that share of requests failed."""
    return "endless" if row["measured_ms"] is None else f"{row['measured_ms']:,.1f} ms"


def milliseconds(value: float | None) -> str:
    """Return a latency with as many digits as 80 columns and its noise allow."""
    return number(value, 2 if value is not None and value < 10 else 1 if value is not None and value < 1000 else 0)


def number(value: float | None, digits: int) -> str:
    """Return a number with thousands apart; a dash for none."""
    return "-" if value is None else f"{value:,.{digits}f}"
