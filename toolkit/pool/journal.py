"""What a pool did, why and what it took: a line of JSON for each event, flushed to disk before the next."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.pool.decisions import FAILED, READY, UNLOADED

#: Every event, and what the model is after it; None: it says nothing of one model.
EVENTS = {
    "started": None,
    "load_begun": "loading",
    "loaded": READY,
    "load_failed": FAILED,
    "unload_begun": "unloading",
    "unloaded": UNLOADED,
    "unload_failed": "broken",
    "broken": "broken",
    "lost": UNLOADED,
    "found": READY,
    "grew": READY,
    "ended": None,
}


#: What a reader is told of an event, besides when, what and which model.
SHOWN = (
    "why", "waited_s", "size_bytes", "was_bytes", "held_bytes", "limit_bytes", "load_s", "unload_s", "resident_s",
    "served", "worth", "base_bytes", "peak_bytes", "retry_s", "told",
)  # fmt: skip
FIGURES = ("base_bytes", "peak_bytes", "load_s", "is_known_at_work")


#: Events that wait for room on a full disk; the oldest go first.
MOST_UNWRITTEN = 10_000


class Journal:
    """Appends to one file; a line that a crash cut off stays alone.

    On a full disk events are kept, in order, until there is room: models are served all the same.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with files.disk_errors_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        size = os.fstat(self._file).st_size
        self._is_torn = bool(size) and os.pread(self._file, 1, size - 1) != b"\n"
        self._unwritten: deque[bytes] = deque(maxlen=MOST_UNWRITTEN)
        self._lock = threading.Lock()
        self._problem = ""

    def write(self, event: str, model: str | None = None, **facts: Any) -> None:
        """Append an event and wait until it is on disk, unless that takes nothing."""
        if event not in EVENTS:
            raise ValueError(f"{event!r} is no event of a pool's journal")
        line = {"at": round(time.time(), 3), "event": event, "model": model} | facts
        text = json.dumps({key: value for key, value in line.items() if value is not None}, ensure_ascii=False)
        with self._lock:
            self._unwritten.append(text.encode() + b"\n")
            self._write_out()

    def _write_out(self) -> None:
        try:
            while self._unwritten:
                if self._is_torn:
                    self._put(b"\n")
                    self._is_torn = False
                self._put(self._unwritten[0])
                self._unwritten.popleft()
            os.fdatasync(self._file)
            self._problem = ""
        except OSError as error:
            self._say(f"The journal {self._path} cannot be written now ({error.strerror}); its events wait in memory.")

    def _put(self, line: bytes) -> None:
        written = os.write(self._file, line)
        if written < len(line):
            self._is_torn = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            with contextlib.suppress(OSError):  # the log may be on the same disk
                print(problem, file=sys.stderr, flush=True)  # noqa: T201 - this is the process's log

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a journal; what a crash cut off is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") in EVENTS:
            yield event


def line(event: Mapping[str, Any]) -> str:
    """Return an event in one line, for people."""
    at = datetime.datetime.fromtimestamp(event["at"]).astimezone().isoformat(sep=" ", timespec="milliseconds")
    words = [at[:23], f"{event.get('model') or '-':<16}", f"{event['event']:<13}"]
    words += [f"{key}={_shown(key, value)}" for key, value in event.items() if key in SHOWN]
    return " ".join(words).rstrip()


def _shown(key: str, value: Any) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{value / 2**20:.0f}MiB"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def replayed(path: Path) -> dict[str, str]:
    """Return what each model is after the last event of a journal."""
    states: dict[str, str] = {}
    for event in read(path):
        if event["event"] == "started":
            states = dict.fromkeys(event["models"], UNLOADED)
        elif (state := EVENTS[event["event"]]) is not None and "model" in event:
            states[event["model"]] = state
    return states


def measured(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the last measured figures of each artefact and KV budget, by their names in the journal."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for event in read(path):
        if "artefact" in event:
            figures = found.setdefault((event["artefact"], event["kv_tokens"]), {})
            figures |= {key: event[key] for key in FIGURES if key in event}
    return found
