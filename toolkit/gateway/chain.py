"""The chain of an audit log: each record carries the hash of the one before, so none can be changed or taken out."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from toolkit.errors import GateError, UsageError

#: What the first record follows.
GENESIS = hashlib.sha256(b"trtk audit log, version 1").hexdigest()
RECOVERED = "recovered"
TAIL_BYTES = 1 << 16


def sealed(fields: Mapping[str, Any], *, sequence: int, previous: str) -> tuple[bytes, str]:
    """Return a record's line without its end, and its hash."""
    record = {**fields, "sequence": sequence, "previous": previous}
    digest = hashlib.sha256(_canonical(record)).hexdigest()
    return _canonical({**record, "hash": digest}), digest


def _canonical(record: Mapping[str, Any]) -> bytes:
    """Return the one JSON text of a record: sorted keys, no spaces, ASCII."""
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def recovered(torn: Sequence[bytes]) -> dict[str, Any]:
    """Return what the record after torn lines says of them."""
    pieces = [{"bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()} for piece in torn]
    return {"kind": RECOVERED, "torn": pieces}


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line whose own hash is right, None for any other line."""
    text = line.removesuffix(b"\n")
    try:
        record = json.loads(text)
        digest = record.pop("hash")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    if not isinstance(record.get("sequence"), int) or hashlib.sha256(_canonical(record)).hexdigest() != digest:
        return None
    # The same bytes too: JSON has many texts for one record.
    return {**record, "hash": digest} if _canonical({**record, "hash": digest}) == text else None


@dataclass(frozen=True, kw_only=True)
class End:
    """Where a chain goes on."""

    sequence: int = 0
    hash: str = GENESIS
    torn: tuple[bytes, ...] = ()  # what crashes and full disks left of lines, without their ends
    is_ended: bool = True  # the file's last line has its end


def end_of(path: Path) -> End:
    """Return where a log goes on; as little as possible is read of it."""
    with path.open("rb") as stream:
        lines = _last_lines(stream)
    torn: list[bytes] = []
    is_ended = not lines or lines[-1].endswith(b"\n")
    for line in reversed(lines):
        if (record := parsed(line)) is not None:
            return End(sequence=record["sequence"], hash=record["hash"], torn=tuple(reversed(torn)), is_ended=is_ended)
        torn.append(line.removesuffix(b"\n"))
    if torn and not torn[-1].startswith(b"{"):
        raise UsageError(
            f"{path} holds something else than an audit log, so nothing is added to it.",
            hint="Give another file with --audit, or move that one away.",
        )
    return End(torn=tuple(reversed(torn)), is_ended=is_ended)


def _last_lines(stream: BinaryIO) -> list[bytes]:
    """Return the lines at the end of a file, from some record on, or from its beginning."""
    size = length = stream.seek(0, os.SEEK_END)
    length = min(TAIL_BYTES, size)
    while True:
        stream.seek(size - length)
        lines = stream.read(length).splitlines(keepends=True)
        whole = lines if length == size else lines[1:]
        if length == size or any(parsed(line) for line in whole):
            return whole
        length = min(4 * length, size)


def last_records(path: Path, count: int) -> list[dict[str, Any]]:
    """Return a log's last records, unverified but each whole in itself."""
    kept: deque[bytes] = deque(maxlen=count)
    try:
        with path.open("rb") as stream:
            kept.extend(line for line in stream if b'"kind":"request"' in line)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    return [record for line in kept if (record := parsed(line)) is not None]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What a whole log shows."""

    records: int
    requests: int
    torn_lines: int
    head: str  # the last record's hash: kept elsewhere, it shows whether records were cut off at the end


def verify(path: Path, *, expected: str | None = None) -> Verified:
    """Follow a log's chain; raises GateError with the line where it breaks."""
    walk = _Walk(path, expected)
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                walk.take(number, line)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    return walk.finish()


class _Walk:
    def __init__(self, path: Path, expected: str | None) -> None:
        self.path = path
        self.end = End()
        self.records = self.requests = self.torn_lines = 0
        self.expected, self.is_met = expected, expected in {None, GENESIS}
        self.waiting: list[tuple[int, bytes]] = []  # lines that the next record must say to be torn

    def take(self, number: int, line: bytes) -> None:
        record = parsed(line)
        if record is None:
            self.waiting.append((number, line))
            return
        self._need_explained(record)
        if record["sequence"] != self.end.sequence + 1:
            self._break(number, f"record {record['sequence']} follows record {self.end.sequence}.")
        if record.get("previous") != self.end.hash:
            self._break(number, "this record does not follow the one before it: its 'previous' is another hash.")
        self.end = End(sequence=record["sequence"], hash=record["hash"])
        self.records += 1
        self.requests += record.get("kind") == "request"
        self.is_met = self.is_met or self.end.hash == self.expected

    def _need_explained(self, record: Mapping[str, Any]) -> None:
        if self.waiting:
            said = recovered([line.removesuffix(b"\n") for _, line in self.waiting])
            if any(record.get(name) != value for name, value in said.items()):
                self._break(self.waiting[0][0], "this is no record, or one that was changed.")
            self.torn_lines += len(self.waiting)
            self.waiting = []

    def finish(self) -> Verified:
        if self.waiting and self.waiting[-1][1].endswith(b"\n"):
            self._break(self.waiting[0][0], "this is no record, or one that was changed.")
        if not self.is_met:
            raise GateError(
                f"{self.path} has no record with the hash {self.expected}: records at its end are missing, or this is "
                "another log."
            )
        torn = self.torn_lines + len(self.waiting)
        return Verified(records=self.records, requests=self.requests, torn_lines=torn, head=self.end.hash)

    def _break(self, number: int, why: str) -> None:
        raise GateError(
            f"{self.path}, line {number}: {why}", hint=f"The {self.records} records before it are as they were written."
        )
