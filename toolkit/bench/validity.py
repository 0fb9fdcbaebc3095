"""When numbers should not be believed, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.bench.runs import Run

MAX_SEND_LAG_P99_MS = 50.0
MIN_ACHIEVED_SHARE = 0.98
LITTLES_LAW_TOLERANCE = 0.05
BUSY_CLIENT_SHARE = 0.9
#: Between the client's and the server's number of output tokens: an end token more or less in each answer.
COUNTS_TOLERANCE = 0.02


def invalid_because(run: Run, lag: Mapping[str, float | None]) -> list[str]:
    """Return the reasons that make a run invalid."""
    failed = [record for record in run.records if record.outcome == "failed"]
    reasons = []
    if run.stop_reason:
        reasons.append(run.stop_reason)
    if run.is_interrupted:
        reasons.append(f"The run was interrupted after {run.duration_s:.1f} s.")
    if failed:
        reasons.append(f"{len(failed)} of {len(run.records)} requests failed, the first with: {failed[0].message}")
    if (lag["p99"] or 0) > MAX_SEND_LAG_P99_MS:
        reasons.append(
            f"The client sent late: p99 of the send lag is {lag['p99']:.0f} ms, over {MAX_SEND_LAG_P99_MS:.0f} ms."
        )
    share = achieved_share(run)
    if share is not None and share < MIN_ACHIEVED_SHARE:
        reasons.append(
            f"The client sent at {share:.1%} of the rate that was asked for, under {MIN_ACHIEVED_SHARE:.0%}."
        )
    if all(record.outcome != "ok" for record in run.records):
        reasons.append("No request succeeded.")
    return reasons


def achieved_share(run: Run) -> float | None:
    """Return the rate at which requests left over the rate at which they were due; None without an open loop."""
    if not run.profile.is_open or run.profile.is_capped or len(run.records) < 2:
        return None
    due = [record.scheduled_s for record in run.records]
    sent = [record.sent_s for record in run.records]
    planned_s, took_s = max(due) - min(due), max(sent) - min(sent)
    return planned_s / took_s if took_s > 0 else None


def doubts(run: Run, document: Mapping[str, Any]) -> list[str]:
    """Return what the reader should know about numbers that are valid."""
    found = (
        _early_ends(run),
        _uncounted_output(document),
        _uncounted_input(run),
        _littles_law(run),
        _busy_client(document),
        _other_clients(run),
        _other_tokens(run),
        _backlog(document),
        _unread_metrics(run),
    )
    return [sentence for sentence in found if sentence]


def _early_ends(run: Run) -> str | None:
    ended = [record for record in run.records if record.outcome == "ok"]
    other = [record for record in ended if record.output_tokens != (record.asked_tokens or run.profile.osl)]
    if not (run.profile.is_eos_ignored and other):
        return None
    asked = sum(record.asked_tokens or run.profile.osl for record in ended) / len(ended)
    mean = sum(record.output_tokens for record in ended) / len(ended)
    return (
        f"{len(other)} of {len(ended)} answers are not as long as asked: the mean is {mean:.1f} tokens where "
        f"{asked:g} were asked for."
    )


def _uncounted_output(document: Mapping[str, Any]) -> str | None:
    if document["token_count_source"] == "server":
        return None
    return "The server does not count output tokens: every response with text counts as one token."


def _uncounted_input(run: Run) -> str | None:
    if run.is_input_counted:
        return None
    return "The server does not count input tokens: they are what was asked for, not what was tokenized."


def _littles_law(run: Run) -> str | None:
    from_records = sum(record.end_s - record.scheduled_s - record.held_s for record in run.records) / run.duration_s
    if abs(from_records - run.mean_in_flight) <= LITTLES_LAW_TOLERANCE * max(run.mean_in_flight, from_records):
        return None
    return (
        f"Little's law does not hold: throughput x latency is {from_records:.2f} requests, "
        f"but {run.mean_in_flight:.2f} were in flight."
    )


def _busy_client(document: Mapping[str, Any]) -> str | None:
    share = document["client"]["cpu_share"]
    if share <= BUSY_CLIENT_SHARE:
        return None
    return (
        f"The load tester used {share:.0%} of a core: it may be what limits the throughput; "
        f"--processes {2 * document['client']['processes']} uses more of them."
    )


def _other_clients(run: Run) -> str | None:
    """Compare the server's count of requests with the client's; what was cancelled may count either way."""
    counted = ((run.server.get("models") or {}).get(run.profile.model) or {}).get("requests")
    if counted is None:  # OpenAI's protocol has no statistics, but the engine behind it may have metrics
        counted = (run.observed.get("counts") or {}).get("requests")
    if counted is None or run.is_interrupted or run.stop_reason:
        return None
    ended = sum(record.outcome == "ok" for record in run.records)
    if ended <= counted <= len(run.records):
        return None
    said = f"The server counted {counted:.0f} requests to {run.profile.model}, the client {len(run.records)}"
    return f"{said}: who else asked it?"


def _other_tokens(run: Run) -> str | None:
    """Compare the engine's count of output tokens with the client's; one not read to its end may count either way."""
    counted = (run.observed.get("counts") or {}).get("output_tokens")
    if counted is None or run.is_interrupted or run.stop_reason:
        return None
    ok = sum(record.output_tokens for record in run.records if record.outcome == "ok")
    others = sum(max(record.output_tokens, record.asked_tokens) for record in run.records if record.outcome != "ok")
    if (1 - COUNTS_TOLERANCE) * ok <= counted <= (1 + COUNTS_TOLERANCE) * (ok + others):
        return None
    said = f"The server counted {counted:,.0f} output tokens, the client {ok:,}"
    return f"{said}: who else asked it, or whose count is wrong?"


def _backlog(document: Mapping[str, Any]) -> str | None:
    growth = document["backlog_growth_rps"]
    if growth is None:
        return None
    return (
        f"The server does not keep up: {growth:.2f} requests/s more arrive than are answered, so these latencies grow "
        "with the length of the run."
    )


def _unread_metrics(run: Run) -> str | None:
    problem = run.observed.get("problem")
    return f"The server's metrics could not be read throughout: {problem}" if problem else None
