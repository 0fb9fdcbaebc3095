"""Results as they lie on disk: this tool's own, and those of aiperf, genai-perf and vLLM, turned into the same records.

What another tool did not write down is not made up: its times are from the send, not from when a request was due, and a
genai-perf export counts responses where it has no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolkit.bench.summary import SCHEMA_VERSION
from toolkit.errors import UsageError
from toolkit.specs import RequestRecord, from_json

Document = Mapping[str, Any]
NS = 1e-9


@dataclass(frozen=True, kw_only=True)
class Result:
    """One load test that was run before."""

    name: str
    tool: str  # trtk, aiperf, genai-perf, vllm
    duration_s: float
    records: tuple[RequestRecord, ...]
    document: Mapping[str, Any]  # report.json of this tool's own; empty for others


def read(path: Path) -> Result:
    """Read a result: the folder or the file that a load tester wrote."""
    try:
        tool, file = _found(path)
        return READERS[tool](file, path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", hint="Give a folder that `trtk bench` wrote.") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UsageError(
            f"{path} is no result that is known here: {type(error).__name__} {error}.",
            hint="Known are those of trtk bench, aiperf (profile_export.jsonl), genai-perf (profile_export.json) and "
            "vllm bench serve (--save-result --save-detailed).",
        ) from error


def _found(path: Path) -> tuple[str, Path]:
    if path.is_dir():
        names = {"report.json": "trtk", "profile_export.jsonl": "aiperf", "profile_export.json": "genai-perf"}
        for name, tool in names.items():
            if (path / name).is_file():
                return tool, path / name
        raise KeyError(f"the folder has none of {', '.join(names)}")
    if path.name == "report.json":
        return "trtk", path
    if path.suffix == ".jsonl":
        return ("trtk" if path.name == "requests.jsonl" else "aiperf"), path
    return ("genai-perf" if "experiments" in json.loads(path.read_text(encoding="utf-8")) else "vllm"), path


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _own(file: Path, name: str) -> Result:
    folder = file.parent
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if document["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"its schema version is {document['schema_version']}, known here is {SCHEMA_VERSION}")
    missing = {"profile", "valid", "warnings", "duration_s"} - document.keys()
    if missing:
        raise KeyError(", ".join(sorted(missing)))
    records = tuple(from_json(RequestRecord, row) for row in _lines(folder / "requests.jsonl"))
    label = folder.name if file.name == name else name
    return Result(name=label, tool="trtk", duration_s=document["duration_s"], records=records, document=document)


def _aiperf(file: Path, name: str) -> Result:
    rows = [row for row in _lines(file) if row["metadata"].get("benchmark_phase") == "profiling"]
    first = min(row["metadata"]["credit_issued_ns"] for row in rows)
    return _made("aiperf", name, [_of_aiperf(row, first, index) for index, row in enumerate(rows)])


def _of_aiperf(row: Document, first_ns: int, index: int) -> RequestRecord:
    told, metrics = row["metadata"], row.get("metrics") or {}

    def value(metric: str) -> float | None:
        return metrics[metric]["value"] if metric in metrics else None

    sent, end = ((told[key] - first_ns) * NS for key in ("request_start_ns", "request_end_ns"))
    ttft, tokens = value("time_to_first_token"), int(value("output_sequence_length") or 0)
    begun = None if ttft is None else sent + ttft / 1000
    gap_ms = value("inter_token_latency")
    later = round((end - begun) * 1000 / gap_ms) if begun is not None and gap_ms else tokens - 1
    outcome = "cancelled" if told.get("was_cancelled") else "failed" if row.get("error") else "ok"
    return _record(
        index, at=((told["credit_issued_ns"] - first_ns) * NS, sent, begun, end), outcome=outcome,
        tokens=(int(value("input_sequence_length") or 0), tokens, max(tokens - later, 1)),
    )  # fmt: skip


def _genai_perf(file: Path, name: str) -> Result:
    requests = json.loads(file.read_text(encoding="utf-8"))["experiments"][0]["requests"]
    begin = min(request["timestamp"] for request in requests)
    records = []
    for index, request in enumerate(requests):
        times = [(time - begin) * NS for time in request["response_timestamps"]]
        sent = (request["timestamp"] - begin) * NS
        first, end = (times[0], times[-1]) if times else (None, sent)
        outcome = "ok" if times else "failed"
        made = _record(index, at=(sent, sent, first, end), outcome=outcome, tokens=(0, len(times), 1))
        records.append(replace(made, chunks=len(times), token_count_source="chunks"))
    return _made("genai-perf", name, records)


def _vllm(file: Path, name: str) -> Result:
    document = json.loads(file.read_text(encoding="utf-8"))
    starts = document["start_times"]
    begin, records = min(starts), []
    for index, start in enumerate(starts):
        ttft, gaps = document["ttfts"][index], document["itls"][index]
        is_ok = not (document.get("errors") or [""] * len(starts))[index]
        sent, outcome = start - begin, "ok" if is_ok else "failed"
        first, end = sent + ttft, sent + ttft + sum(gaps)
        made = document["output_lens"][index]
        tokens = (document["input_lens"][index], made, 1 if gaps else made)
        made = _record(index, at=(sent, sent, first if is_ok else None, end), outcome=outcome, tokens=tokens)
        records.append(replace(made, chunks=1 + len(gaps)))
    return replace(_made("vllm", name, records), duration_s=document["duration"])


def _record(
    index: int, *, at: tuple[float, float, float | None, float], outcome: str, tokens: tuple[int, int, int]
) -> RequestRecord:
    due, sent, first, end = at
    given, made, at_once = tokens
    return RequestRecord(
        request_id=str(index), scheduled_s=due, sent_s=sent, first_token_s=first, last_token_s=end if first else None,
        end_s=end, input_tokens=given, output_tokens=made, first_chunk_tokens=min(at_once, made), chunks=made,
        outcome=outcome, error="unknown" if outcome == "failed" else None,
    )  # fmt: skip


def _made(tool: str, name: str, records: Sequence[RequestRecord]) -> Result:
    duration_s = max(record.end_s for record in records) - min(record.sent_s for record in records)
    return Result(name=name, tool=tool, duration_s=duration_s, records=tuple(records), document={})


READERS: Mapping[str, Callable[[Path, str], Result]] = {
    "trtk": _own,
    "aiperf": _aiperf,
    "genai-perf": _genai_perf,
    "vllm": _vllm,
}
