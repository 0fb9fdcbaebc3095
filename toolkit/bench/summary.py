"""From a run to the report: pure arithmetic over records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit import __version__
from toolkit.bench import definitions, energy, price, shortage, slo, stability, turns, validity
from toolkit.bench.latency import LATENCIES, distribution, percentiles_with_failures
from toolkit.bench.runs import Run
from toolkit.specs import BenchReport, RequestRecord, to_json

SCHEMA_VERSION = 1
NOT_OBSERVED: dict[str, Any] = {"url": "", "problem": "", "samples": [], "peak": {}, "counts": None, "gpus": []}


def summarise(run: Run, environment: Mapping[str, Any]) -> BenchReport:
    """Return the report of a run; latencies are of the requests that succeeded."""
    ok = [record for record in run.records if record.outcome == "ok"]
    output_tokens = sum(record.output_tokens for record in ok)
    input_tokens = sum(record.input_tokens for record in ok)
    output_tps = output_tokens / run.duration_s
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "tool_version": __version__,
        "started_at": run.started_at,
        "interrupted": run.is_interrupted,
        "profile": _profile(run),
        "environment": dict(environment),
        "server": dict(run.server),
        "server_metrics": {**NOT_OBSERVED, **{key: run.observed[key] for key in NOT_OBSERVED if key in run.observed}},
        "client": {
            "cpu_s": run.client_cpu_s,
            "cpu_share": run.client_cpu_s / run.duration_s / run.client_processes,
            "processes": run.client_processes,
        },
        "duration_s": run.duration_s,
        "mean_in_flight": run.mean_in_flight,
        "requests": _outcomes(run.records),
        "errors": dict(Counter(record.error for record in run.records if record.error)),
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "token_count_source": _source(ok),
        "request_throughput_rps": len(ok) / run.duration_s,
        "output_token_throughput_tps": output_tps,
        "steady_output_token_throughput_tps": steady_throughput(ok, run.profile.concurrency),
        "total_token_throughput_tps": (input_tokens + output_tokens) / run.duration_s,
        **_latencies(run.records, ok),
        "turns": turns.by_turn(ok),
        "energy": energy.per_token(run.observed.get("energy"), duration_s=run.duration_s, output_tokens=output_tokens),
        "backlog_growth_rps": stability.growth_rps(run),
        "definitions": definitions.document(),
        "percentile_method": definitions.PERCENTILE_METHOD,
    }
    document |= {"cost": _cost(run, ok, document), **_objectives(run)}
    reasons = validity.invalid_because(run, document["send_lag_ms"])
    document["limited_by"] = shortage.limited_by(document)
    document |= {"valid": not reasons, "warnings": reasons + validity.doubts(run, document)}
    return BenchReport(document=document, records=run.records)


def _profile(run: Run) -> dict[str, Any]:
    # Prompts given by the user may be many and private: their number says enough.
    return {**to_json(run.profile), "prompts": len(run.profile.prompts), "trace": len(run.profile.trace)}


def _cost(run: Run, ok: Sequence[RequestRecord], document: Mapping[str, Any]) -> dict[str, Any] | None:
    rates = {
        "input_tokens": document["input_tokens"] / run.duration_s,
        "output_tokens": document["output_token_throughput_tps"],
        "requests": document["request_throughput_rps"],
    }
    return price.cost(run.profile, rates, price.input_time_share(run, ok))


def _outcomes(records: Sequence[RequestRecord]) -> dict[str, int]:
    counts = Counter(record.outcome for record in records)
    return {"sent": len(records), "ok": counts["ok"], "failed": counts["failed"], "cancelled": counts["cancelled"]}


def _source(ok: Sequence[RequestRecord]) -> str:
    # The weakest source is the one to name.
    sources = {record.token_count_source for record in ok}
    return next((name for name in ("chunks", "tokenizer", "server") if name in sources), "server")


def _latencies(records: Sequence[RequestRecord], ok: Sequence[RequestRecord]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    failures = sum(record.outcome == "failed" for record in records)
    values = {name: [v for record in ok if (v := measure(record)) is not None] for name, measure in LATENCIES.items()}
    values["send_lag_ms"] = [1000 * (record.sent_s - record.scheduled_s - record.held_s) for record in records]
    for name, numbers in values.items():
        found[name] = distribution(numbers)
    found["latency_with_failures"] = {
        name: percentiles_with_failures(values[name], failures) for name in ("ttft_ms", "e2e_latency_ms")
    }
    return found


def _objectives(run: Run) -> dict[str, Any]:
    objectives = [slo.parse(text) for text in run.profile.slos]
    if not objectives:
        return {"slo": [], "goodput_rps": None}
    return {
        "slo": slo.verdicts(objectives, run.records),
        "goodput_rps": slo.good_requests(objectives, run.records) / run.duration_s,
    }


def steady_throughput(ok: Sequence[RequestRecord], concurrency: int) -> float | None:
    """Return output tokens per second from the moment every slot was in use to the last send; None for short runs."""
    if len(ok) <= concurrency:
        return None
    in_order = sorted(record.sent_s for record in ok)
    start, end = in_order[concurrency - 1], in_order[-1]
    if end <= start:
        return None
    return sum(tokens_between(record, start, end) for record in ok) / (end - start)


def tokens_between(record: RequestRecord, start: float, end: float) -> float:
    """Return how many of a request's tokens fall into a window: its first chunk at once, the others evenly after it."""
    if record.first_token_s is None or record.last_token_s is None:
        return 0.0
    first, last = record.first_token_s, record.last_token_s
    at_once = record.first_chunk_tokens if start <= first < end else 0
    later = record.output_tokens - record.first_chunk_tokens
    if last <= first:
        return at_once + (later if start <= first < end else 0)
    overlap = max(0.0, min(last, end) - max(first, start))
    return at_once + later * overlap / (last - first)
