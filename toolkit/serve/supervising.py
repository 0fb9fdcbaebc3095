"""Staying with a server: what dies is started again within the limit, and why is said and recorded."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

from toolkit import processes
from toolkit.errors import MissingError, ServerError, TrtkError
from toolkit.serve import companions, failing, probing, records, spawning, starting, stopping
from toolkit.serve.records import Record, StoppedMeanwhile
from toolkit.specs import Endpoint

#: How often a server is looked at.
WATCH_S = 0.5
#: Wait before the first restart in a row; doubled with each further one.
BACKOFF_S, BACKOFF_MAX_S = 1.0, 60.0
#: A server that was well for so long has forgiven what was before.
FORGIVEN_AFTER_S = 600.0
Say = Callable[[str], None]


def supervise(endpoint: Endpoint, *, say: Say, look: Callable[[], None] = lambda: None) -> None:
    """Watch a server until another command stops it; raises when it failed more often than it may.

    LOOK is called at every turn. What failed is killed whole before the error is raised; the record stays.
    """
    record = records.read(endpoint.name)
    if record is None or record.endpoint.pid != endpoint.pid:
        return
    prober = probing.Prober(record)
    well_since = time.monotonic()
    try:
        while records.is_current(record):
            look()
            record = _with_companions(record, say)
            if fault := _fault(record, prober):
                record = _restarted(record, fault, say)
                prober, well_since = probing.Prober(record), time.monotonic()
            elif record.failures and time.monotonic() - well_since > FORGIVEN_AFTER_S:
                record = _noted(record, say, failures=0)
            time.sleep(WATCH_S)
    except StoppedMeanwhile:
        pass


def start_supervisor(endpoint: Endpoint) -> None:
    """Start the process that supervises a detached server, and hand the server over to it."""
    record = records.read(endpoint.name)
    if record is None or record.endpoint.pid != endpoint.pid:
        return
    with records.claimed(record) as current:
        argv = [sys.executable, "-m", "toolkit.serve.supervisor", endpoint.name, current.server_id]
        started = spawning.spawn(argv, os.environ, log=Path(endpoint.log_path))
        supervised = dataclasses.replace(current, is_supervised=True, is_detached=True)
        records.write(dataclasses.replace(supervised, owner_pid=started.pid, owner_start_ticks=started.start_ticks))


def _fault(record: Record, prober: probing.Prober) -> str:
    """Return why a server is no good any more; empty while it is."""
    if not record.is_alive:
        return failing.ended(record)
    # A pool unloads a model whose process died, and loads it again.
    if not record.endpoint.spec.is_pool and (dead := processes.dead_children(record.endpoint.pid)):
        return f"A model's Python process (pid {', '.join(map(str, dead))}) of {record.endpoint.name!r} died."
    return prober.fault()


def _with_companions(record: Record, say: Say) -> Record:
    """Start companions again that died; one that does not come back counts as a failure of the server."""
    for one in companions.dead(record):
        if not record.is_alive:
            break
        how = processes.how_it_ended(one.pid, timeout_s=0.0)
        failure = f"The {one.name} of {record.endpoint.name!r} (pid {one.pid}) ended{how}."
        record = _delayed(_counted(record, failure, say), failure, say)
        try:
            record = companions.start(record, companions.spec_of(record, one.name), restarts=one.restarts + 1)
        except StoppedMeanwhile:
            raise
        except ServerError as error:
            say(str(error))
        else:
            say(f"The {one.name} of {record.endpoint.name!r} is back.")
    return record


def _restarted(record: Record, failure: str, say: Say) -> Record:
    """Start a server again, as often as it may."""
    while True:
        error = failing.explained(record.endpoint, failure)
        record = _counted(record, failure, say, is_ready=False)
        _clear(record, say)
        record = _delayed(record, str(error), say)
        try:
            stopping.clear(record)  # what could not be removed before must be gone now
            record = starting.bring_up(record)
        except StoppedMeanwhile:
            raise
        except TrtkError as again:
            failure = str(again).splitlines()[0]
        else:
            say(f"{record.endpoint.name} is ready again (pid {record.endpoint.pid}).")
            return record


def _clear(record: Record, say: Say) -> None:
    """Remove what is left of a server; what cannot be removed now, because a daemon is away, is said."""
    try:
        stopping.clear(record)
    except TrtkError as error:
        say(str(error))


def _counted(record: Record, failure: str, say: Say, **changes: Any) -> Record:
    """Write a failure down before anything is done about it, so that status can tell."""
    return _noted(record, say, failures=record.failures + 1, last_failure=failure, **changes)


def _noted(record: Record, say: Say, **changes: Any) -> Record:
    """Write changes down, as soon as the disk takes them: nobody but who watches a server starts it again."""
    said = ""
    while isinstance(changed := _changed(record, changes), MissingError):
        if str(changed) != said:
            said = str(changed)
            say(f"{said} Waiting for room.")
        time.sleep(WATCH_S)
    return changed


def _changed(record: Record, changes: dict[str, Any]) -> Record | MissingError:
    try:
        return records.change(record, **changes)
    except MissingError as error:
        return error


def _delayed(record: Record, failure: str, say: Say) -> Record:
    """Say what follows from a failure and wait; raises when there were too many in a row."""
    limit, failures = record.endpoint.spec.max_restarts, record.failures
    if failures > limit:
        _clear(record, say)
        tried = f"\nIt was started again {limit} times in a row." if limit else ""
        raise ServerError(f"{failure}{tried}", hint=f"`trtk logs {quote(record.endpoint.name)}` shows its log.")
    wait_s = min(BACKOFF_S * 2 ** (failures - 1), BACKOFF_MAX_S)
    say(f"{failure.splitlines()[0]} Starting it again in {wait_s:.0f} s ({failures} of {limit}).")
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if not records.is_current(record):
            raise records.stopped_meanwhile(record)
        time.sleep(min(WATCH_S, wait_s))
    return _noted(record, say, restarts=record.restarts + 1)
