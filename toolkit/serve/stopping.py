"""Stopping: drain, SIGTERM, SIGKILL to everything that is left, then looking whether anything is."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import shutil
import signal
import time
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from toolkit import processes, workspace
from toolkit.errors import MissingError, ServerError, UsageError
from toolkit.processes import Process
from toolkit.serve import backend as backends
from toolkit.serve import records
from toolkit.serve.backend import shm_prefix, stop_file
from toolkit.serve.records import NOT_STARTED, Record
from toolkit.specs import Endpoint

SHARED_MEMORY = Path("/dev/shm")
#: Where 2.51's Python backend makes its folders, whatever TMPDIR says.
TEMPORARY = Path("/tmp")
#: How long a killed process may take to disappear.
KILL_WAIT_S = 5.0
LAST_WORDS_S = 2.0
POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What stopping a server took."""

    name: str
    was_alive: bool
    duration_s: float
    killed: int  # processes that had to be killed
    shared_memory_removed: int  # regions it left behind


def stop(name: str, *, timeout_s: float | None = None) -> Stopped:
    """Stop a server, dead or alive, and leave no process, no shared memory and no record of it."""
    record = records.read(name)
    if record is None:
        raise UsageError(f"There is no server named {name!r}.", hint="`trtk status` lists them.")
    return stop_recorded(record, timeout_s=timeout_s)


def stop_recorded(record: Record, *, timeout_s: float | None = None) -> Stopped:
    """Stop the server of a record, dead or alive."""
    started = time.monotonic()
    record = _marked(record)
    was_alive = record.is_alive
    if record.is_detached:
        processes.send(record.owner, signal.SIGTERM)
    members = record.members()
    if was_alive and record.endpoint.pid != NOT_STARTED:
        _ask_companions(record, wait_s=record.endpoint.spec.exit_timeout_s / 2 + LAST_WORDS_S)
        _ask(record, _patience_s(record) if timeout_s is None else timeout_s)
        _ask_companions(record, wait_s=LAST_WORDS_S, outlasts_triton=True)
    killed, removed = clear(record, members)
    _remove_leftovers(record.endpoint.spec.leftovers)
    records.remove(record)
    return Stopped(
        name=record.endpoint.name,
        was_alive=was_alive,
        duration_s=round(time.monotonic() - started, 2),
        killed=killed,
        shared_memory_removed=removed,
    )


def clear(record: Record, members: Set[Process] = frozenset()) -> tuple[int, int]:
    """Kill what is left of a server and remove its shared memory; return how many processes and regions there were."""
    killed = _kill(record, members | record.members())
    killed += backends.pick(record.endpoint.spec.backend).clear(record.server_id, was_killed=bool(killed))
    removed = _remove_shared_memory(record)
    others = [time.time() - processes.uptime_s(one) for one in processes.named("tritonserver")]
    remove_stub_folders(record.endpoint, others_started=others)
    return killed, removed


def _marked(record: Record) -> Record:
    """Say in the record that it ends, so that nobody starts anything of it again; return it as it was last."""
    with records.locked():
        current = records.read(record.endpoint.name)
        if current is None or current.server_id != record.server_id:
            return record
        try:
            records.write(dataclasses.replace(current, is_stopping=True))
        except MissingError:  # on a full disk: nobody starts anything of a server without a record either
            records.drop(current)
    return current


def _patience_s(record: Record) -> float:
    return record.endpoint.spec.exit_timeout_s + backends.pick(record.endpoint.spec.backend).exit_margin_s


def _ask_companions(record: Record, *, wait_s: float, outlasts_triton: bool = False) -> None:
    """Let companions end what they still do: while Triton answers, those that it answers through after that.

    Theirs is the same half of the time as Triton's own, and then they say to whom they did not answer.
    """
    late = {one.name for one in record.endpoint.spec.companions if one.outlasts_triton}
    asked = [one for one in record.companions if (one.name in late) == outlasts_triton]
    for one in asked:
        processes.send(one.process, signal.SIGTERM)
    deadline = time.monotonic() + wait_s
    while any(processes.is_alive(one.process) for one in asked) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for one in asked:
        processes.reap(one.pid)


def _ask(record: Record, timeout_s: float) -> None:
    # Only Triton gets the signal: it drains requests, which needs its stubs alive.
    processes.send(record.process, signal.SIGTERM)
    _wait(record, until=time.monotonic() + timeout_s / 2)
    if record.is_alive:
        # Requests have had their time: the engine answers what it still works on, so that no connection just breaks.
        with contextlib.suppress(OSError):  # on a full disk they have to break
            stop_file(record.server_id).touch()
        _wait(record, until=time.monotonic() + timeout_s / 2)
        stop_file(record.server_id).unlink(missing_ok=True)  # another `trtk stop` may be at it
    processes.reap(record.endpoint.pid)


def _wait(record: Record, *, until: float) -> None:
    while record.is_alive and time.monotonic() < until:
        time.sleep(POLL_S)


def _kill(record: Record, members: Set[Process]) -> int:
    """Kill what is left. 2.51 with an open gRPC stream gives up at its exit timeout, yet never exits."""
    killed: set[Process] = set()
    deadline = time.monotonic() + KILL_WAIT_S
    while left := {one for one in members | record.members() if processes.is_alive(one)}:
        if time.monotonic() > deadline:
            pids = ", ".join(str(one.pid) for one in sorted(left))
            raise ServerError(
                f"Server {record.endpoint.name!r} could not be killed: pid {pids} is still there.",
                hint="It may wait for a device or belong to another user; `trtk stop` again later.",
            )
        for one in left:
            processes.send(one, signal.SIGKILL)
        killed |= left
        time.sleep(POLL_S)
    if record.endpoint.pid != NOT_STARTED:
        processes.reap(record.endpoint.pid)
    return len(killed)


def _remove_shared_memory(record: Record) -> int:
    # The prefix holds the server's random id: what has it is provably this server's.
    left = list(SHARED_MEMORY.glob(f"{shm_prefix(record.server_id)}*"))
    for region in left:
        region.unlink(missing_ok=True)
    return len(left)


def _remove_leftovers(paths: Iterable[str]) -> None:
    state = workspace.state_dir().absolute()
    for path in map(Path, paths):
        if not path.is_relative_to(state):  # a record that somebody wrote by hand must not reach further
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_stub_folders(endpoint: Endpoint, *, others_started: Iterable[float], temporary: Path = TEMPORARY) -> None:
    """Remove the empty folder that Triton's Python backend makes at start and leaves behind when it is killed.

    It bears no name of its server; it is taken for this one's when it was made while this one started, and when no
    server that lives is old enough to have made it.
    """
    began = datetime.datetime.fromisoformat(endpoint.started_at).timestamp()
    oldest_other = min(others_started, default=math.inf)
    for folder in temporary.glob("python_env_??????"):
        with contextlib.suppress(OSError):  # not empty, gone, or not ours
            made = folder.stat().st_mtime
            if began <= made <= began + endpoint.spec.startup_timeout_s and made < oldest_other:
                folder.rmdir()
