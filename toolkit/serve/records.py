"""The record of each server: one JSON file, written by rename; what it says is checked against /proc before use."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit import files, processes, specs, workspace
from toolkit.errors import UsageError
from toolkit.processes import Process
from toolkit.serve.backend import MARKER
from toolkit.specs import Endpoint

SCHEMA_VERSION = 1
#: A pid that no process has: the server is claimed, but not started yet.
NOT_STARTED = 0


@dataclass(frozen=True, kw_only=True)
class Record:
    """A server as its starter left it."""

    schema_version: int = SCHEMA_VERSION
    server_id: str
    endpoint: Endpoint
    boot_id: str
    start_ticks: int  # of the server's process; with its pid, which process it is
    owner_pid: int  # the trtk that started it
    owner_start_ticks: int
    is_ready: bool = False  # it answered the probe

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
    """Write a record by rename."""
    files.write_json(_file(record.endpoint.name), specs.to_json(record))


def remove(record: Record) -> None:
    """Remove a record, unless another server has taken the name since."""
    with locked():
        current = read(record.endpoint.name)
        if current is not None and current.server_id == record.server_id:
            _file(record.endpoint.name).unlink()


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
    import json

    try:
        return specs.from_json(Record, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{path} is not a server record of this version of trtk: {error}.", hint=f"Move it away: mv {path} /tmp/"
        ) from error
