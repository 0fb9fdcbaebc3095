"""The record of each server: one JSON file, written by rename; what it says is checked against /proc before use."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import files, processes, specs, workspace
from toolkit.errors import MissingError, ServerError, UsageError
from toolkit.processes import Process
from toolkit.serve.backend import MARKER
from toolkit.specs import Endpoint

SCHEMA_VERSION = 1
#: Of a file system: a record fills whole ones, with room for a sentence to come.
BLOCK_BYTES, SPARE_BYTES = 4096, 1024
READ_AGAIN, READ_PAUSE_S = 2, 0.03
#: A pid that no process has: the server is claimed, but not started yet.
NOT_STARTED = 0


@dataclass(frozen=True, kw_only=True)
class CompanionRecord:
    """A companion as it was started last."""

    name: str
    pid: int
    start_ticks: int
    restarts: int = 0

    @property
    def process(self) -> Process:
        """The companion's process, dead or alive."""
        return Process(pid=self.pid, start_ticks=self.start_ticks)


@dataclass(frozen=True, kw_only=True)
class Record:
    """A server as its starter left it."""

    schema_version: int = SCHEMA_VERSION
    server_id: str
    secret: str = ""  # of Triton's closed APIs
    endpoint: Endpoint
    boot_id: str
    start_ticks: int  # of the server's process; with its pid, which process it is
    owner_pid: int  # the trtk that started it
    owner_start_ticks: int
    is_ready: bool = False  # it answered the probe
    is_supervised: bool = False  # its owner watches it, and starts it again
    is_detached: bool = False  # its owner does nothing else, and ends with it
    log_start: int = 0  # where in its log the last start begins
    is_stopping: bool = False  # nobody may start anything of it any more
    companions: tuple[CompanionRecord, ...] = ()
    restarts: int = 0  # since it was first started
    failures: int = 0  # in a row
    last_failure: str = ""  # a sentence

    @property
    def process(self) -> Process:
        """The server's process, dead or alive."""
        return Process(pid=self.endpoint.pid, start_ticks=self.start_ticks)

    @property
    def owner(self) -> Process:
        """The trtk that started it, dead or alive."""
        return Process(pid=self.owner_pid, start_ticks=self.owner_start_ticks)

    @property
    def is_alive(self) -> bool:
        """Whether exactly the recorded server still lives, or is just being started."""
        if self.boot_id != processes.boot_id():
            return False
        return processes.is_alive(self.owner if self.endpoint.pid == NOT_STARTED else self.process)

    @property
    def is_held(self) -> bool:
        """Whether its name is taken: it lives, or its supervisor is about to start it again."""
        return self.is_alive or (
            self.is_supervised and self.boot_id == processes.boot_id() and processes.is_alive(self.owner)
        )

    def members(self) -> set[Process]:
        """Return every living process of this server: those that carry its id, and its session while it lives."""
        found = processes.marked(MARKER, self.server_id)
        if self.endpoint.pid != NOT_STARTED and self.is_alive:
            found |= processes.in_session(self.endpoint.pid)
        return found


def folder() -> Path:
    """Return the folder of records and logs."""
    return (workspace.state_dir() / "servers").absolute()


def log_file(name: str) -> Path:
    """Return where a server of this name logs; the file outlives the server."""
    return folder() / f"{workspace.slug(name)}.log"


def read_all() -> list[Record]:
    """Return every record, by name."""
    found = [_read(path) for path in sorted(folder().glob("*.json"))]
    return [record for record in found if record is not None]


def read(name: str) -> Record | None:
    """Return the record of one server."""
    return _read(_file(name))


def write(record: Record) -> None:
    """Write a record by rename; it holds a secret, so it is for this user alone.

    On a full disk it is written over the old one, into the bytes kept for that: whoever watches a server must be able
    to say what became of it.
    """
    path, text = _file(record.endpoint.name), files.canonical_json(specs.to_json(record))
    kept = -(-(len(text.encode()) + SPARE_BYTES) // BLOCK_BYTES) * BLOCK_BYTES - len(text.encode())
    try:
        files.write_text(path, text + " " * kept, mode=0o600)
    except MissingError:
        if not _written_over(path, text.encode()):
            raise


def _written_over(path: Path, raw: bytes) -> bool:
    with contextlib.suppress(OSError), path.open("rb+", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        return len(raw) <= size and stream.write(raw.ljust(size)) == size
    return False


def remove(record: Record) -> None:
    """Remove a record, unless another server has taken the name since."""
    with locked():
        current = read(record.endpoint.name)
        if current is not None and current.server_id == record.server_id:
            drop(record)


def drop(record: Record) -> None:
    """Remove a record; the caller has the lock."""
    path = _file(record.endpoint.name)
    with files.disk_errors_named(path):
        path.unlink()


def is_current(record: Record) -> bool:
    """Whether this is still the server of its name, and nobody stops it."""
    current = read(record.endpoint.name)
    return current is not None and current.server_id == record.server_id and not current.is_stopping


def change(record: Record, **changes: Any) -> Record:
    """Write changes of a server that nobody has stopped; return the record as it is now."""
    with claimed(record) as current:
        changed = dataclasses.replace(current, **changes)
        write(changed)
    return changed


@contextlib.contextmanager
def claimed(record: Record) -> Iterator[Record]:
    """Yield the record as it is now, under the lock; raises where another command has stopped its server."""
    with locked():
        current = read(record.endpoint.name)
        if current is None or current.server_id != record.server_id or current.is_stopping:
            raise stopped_meanwhile(record)
        yield current


class StoppedMeanwhile(ServerError):
    """Another command stopped the server that this one was working on."""


def stopped_meanwhile(record: Record) -> StoppedMeanwhile:
    """Return the error of a server that another command stopped."""
    return StoppedMeanwhile(f"The server {record.endpoint.name!r} was stopped by another command.")


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the lock under which names are taken and given back."""
    path = folder() / ".lock"
    with files.disk_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w", encoding="utf-8")
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _file(name: str) -> Path:
    return folder() / f"{workspace.slug(name)}.json"


def _read(path: Path) -> Record | None:
    found = _parsed(path)
    for _ in range(READ_AGAIN):  # it may just be being written over
        if not isinstance(found, Exception):
            return found
        time.sleep(READ_PAUSE_S)
        found = _parsed(path)
    if isinstance(found, Exception):
        raise UsageError(
            f"{path} is not a server record of this version of trtk: {found}.", hint=f"Move it away: mv {path} /tmp/"
        ) from found
    return found


def _parsed(path: Path) -> Record | Exception | None:
    import json

    try:
        return specs.from_json(Record, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        return error
