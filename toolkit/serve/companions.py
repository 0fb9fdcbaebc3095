"""Further processes of a server: started once Triton is ready, in the same marker, watched and stopped with it."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

from toolkit import processes
from toolkit.errors import ServerError
from toolkit.processes import Process
from toolkit.serve import records, spawning, triton_http
from toolkit.serve.backend import MARKER, SECRET
from toolkit.serve.records import CompanionRecord, Record
from toolkit.specs import Companion

POLL_S = 0.1


def start(record: Record, companion: Companion, *, restarts: int = 0) -> Record:
    """Start one companion and wait until it is ready; return the record that knows it."""
    with records.claimed(record) as current:
        environment = {**os.environ, MARKER: current.server_id, SECRET: current.secret, **companion.environment}
        started = spawning.spawn(companion.argv, environment, log=Path(current.endpoint.log_path))
        mine = CompanionRecord(name=companion.name, pid=started.pid, start_ticks=started.start_ticks, restarts=restarts)
        others = tuple(one for one in current.companions if one.name != companion.name)
        changed = dataclasses.replace(current, companions=(*others, mine))
        records.write(changed)
    _wait(changed, companion, mine.process)
    return changed


def is_ready(companion: Companion) -> bool:
    """Whether a running companion says that it is ready."""
    return not companion.ready_url or triton_http.answers(companion.ready_url)


def dead(record: Record) -> list[CompanionRecord]:
    """Return the companions that were started and live no more."""
    return [one for one in record.companions if not processes.is_alive(one.process)]


def spec_of(record: Record, name: str) -> Companion:
    """Return what a companion was asked to be."""
    return next(one for one in record.endpoint.spec.companions if one.name == name)


def _wait(record: Record, companion: Companion, process: Process) -> None:
    limit_s = companion.ready_timeout_s
    deadline = time.monotonic() + limit_s
    while not is_ready(companion):
        if not processes.is_alive(process):
            how = processes.how_it_ended(process.pid, timeout_s=2.0)
            raise ServerError(f"The {companion.name} of {record.endpoint.name!r} (pid {process.pid}) ended{how}.")
        if not records.is_current(record):
            raise records.stopped_meanwhile(record)
        if time.monotonic() > deadline:
            raise ServerError(f"The {companion.name} of {record.endpoint.name!r} was not ready after {limit_s:.0f} s.")
        time.sleep(POLL_S)
