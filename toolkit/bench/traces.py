"""Traces of real traffic: when requests came and how long they were, in the formats that are published.

Formats: Mooncake's JSON lines (timestamp in ms, input_length, output_length, hash_ids of blocks of 512 tokens; Qin et
al., FAST 2025), Azure's and BurstGPT's CSV, ShareGPT's conversations (no times), and this tool's requests.jsonl.
"""

from __future__ import annotations

import csv
import datetime
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.bench.lengths import MOST_TOKENS
from toolkit.errors import UsageError
from toolkit.specs import TraceRow

#: A rough rule for text whose tokens were not counted: English has about four characters to a token.
CHARS_PER_TOKEN = 4
Document = Mapping[str, Any]


def read(path: Path, *, speed: float = 1.0) -> tuple[TraceRow, ...]:
    """Return a trace's rows in the order of time, from zero on; with SPEED 2 it is replayed in half the time."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [_checked(row) for row in _rows(text)]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The trace {path} cannot be read: {error}.") from error
    except (ValueError, KeyError, TypeError, OverflowError, csv.Error) as error:
        raise UsageError(
            f"{path} is no trace that is known here: {type(error).__name__} {error}.",
            hint="Known are Mooncake's JSON lines, Azure's and BurstGPT's CSV, ShareGPT's JSON and requests.jsonl.",
        ) from error
    rows = [row for row in rows if row.input_tokens > 0 and row.output_tokens > 0]
    if not rows:
        raise UsageError(f"{path} has no request in it.")
    return _from_zero(rows, speed)


def _checked(row: TraceRow) -> TraceRow:
    """Return a row with numbers that are some; raises ValueError and TypeError for others."""
    if row.due_s is not None and not math.isfinite(row.due_s):
        raise ValueError(f"a request came at {row.due_s}")
    if max(row.input_tokens, row.output_tokens) > MOST_TOKENS:
        raise ValueError(f"a request has more than {MOST_TOKENS:,} tokens")
    if not all(isinstance(block, int) for block in row.blocks):
        raise TypeError("hash_ids are not whole numbers")
    return row


def _from_zero(rows: Sequence[TraceRow], speed: float) -> tuple[TraceRow, ...]:
    if any(row.due_s is None for row in rows):
        return tuple(rows)
    first = min(row.due_s or 0.0 for row in rows)
    moved = [replace(row, due_s=((row.due_s or 0.0) - first) / speed) for row in rows]
    return tuple(sorted(moved, key=lambda row: row.due_s or 0.0))


def _rows(text: str) -> Iterator[TraceRow]:
    beginning = text.lstrip()[:1]
    if beginning == "[":
        return _from_documents(json.loads(text))
    if beginning == "{":
        return _from_documents(json.loads(line) for line in text.splitlines() if line.strip())
    return _from_csv(csv.DictReader(text.splitlines()))


def _from_documents(documents: Iterable[Document]) -> Iterator[TraceRow]:
    for document in documents:
        found = next((reader for key, reader in READERS.items() if key in document), None)
        if found is None:
            raise KeyError(f"none of {', '.join(READERS)}")
        yield from found(document)


def _mooncake(document: Document) -> Iterator[TraceRow]:
    yield TraceRow(
        due_s=document["timestamp"] / 1000,
        input_tokens=int(document["input_length"]),
        output_tokens=int(document["output_length"]),
        blocks=tuple(document.get("hash_ids", ())),
    )


def _own(document: Document) -> Iterator[TraceRow]:
    yield TraceRow(
        due_s=float(document["scheduled_s"]),
        input_tokens=int(document["input_tokens"]),
        output_tokens=int(document["output_tokens"]),
    )


def _sharegpt(document: Document) -> Iterator[TraceRow]:
    """Yield the first question of a conversation, with the length of its answer."""
    turns = document["conversations"]
    if len(turns) >= 2:
        question, answer = turns[0]["value"], turns[1]["value"]
        yield TraceRow(
            due_s=None,
            input_tokens=-(-len(question) // CHARS_PER_TOKEN),
            output_tokens=-(-len(answer) // CHARS_PER_TOKEN),
            prompt=question,
        )


READERS: Mapping[str, Callable[[Document], Iterator[TraceRow]]] = {
    "input_length": _mooncake,
    "scheduled_s": _own,
    "conversations": _sharegpt,
}
#: Of a CSV: the time, the input tokens and the output tokens, as the publishers call them.
COLUMNS = (
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    ("Timestamp", "Request tokens", "Response tokens"),
)


def _from_csv(table: csv.DictReader[str]) -> Iterator[TraceRow]:
    names = next((names for names in COLUMNS if set(names) <= set(table.fieldnames or ())), None)
    if names is None:
        raise KeyError(f"the columns are {', '.join(table.fieldnames or ())}")
    when, given, made = names
    for row in table:
        yield TraceRow(due_s=_seconds(row[when]), input_tokens=int(row[given]), output_tokens=int(row[made]))


def _seconds(text: str) -> float:
    """Read seconds, or a date and time of up to seven decimals."""
    try:
        return float(text)
    except ValueError:
        whole, _, fraction = text.partition(".")
        moment = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc)
        digits = fraction.split("+")[0].rstrip("Z")
        return moment.timestamp() + (float(f"0.{digits}") if digits else 0.0)
