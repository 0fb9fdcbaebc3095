"""Whose a container is: labels name the process that started it, so that nothing outlives its owner unnoticed."""

from __future__ import annotations

import socket
import time
from contextlib import closing, suppress
from typing import Any

from toolkit import processes
from toolkit.containers.daemon import Daemon, connect
from toolkit.processes import Process

JOB, HOST, BOOT, PID, START = (f"trtk.{name}" for name in ("job", "host", "boot", "pid", "start-ticks"))
#: A container that was asked for may appear this long after its owner was killed.
SETTLE_S = 3.0
POLL_S = 0.2
CONFLICT = 409


def labels(job: str) -> dict[str, str]:
    """Return the labels of a container that this process starts for a job."""
    me = processes.this_process()
    return {
        JOB: job,
        HOST: socket.gethostname(),
        BOOT: processes.boot_id(),
        PID: str(me.pid),
        START: str(me.start_ticks),
    }


def terminate(job: str) -> None:
    """Send SIGTERM to the containers of a job, over a connection of its own."""
    import docker

    with closing(connect()) as daemon:
        for container in of_job(daemon, job):
            with suppress(docker.errors.APIError):  # it ended meanwhile
                container.kill("SIGTERM")


def remove_of(daemon: Daemon, job: str, *, settle_s: float = 0.0) -> int:
    """Remove the containers of a job, running or not, and those that still appear; return how many there were."""
    removed, deadline = 0, time.monotonic() + settle_s
    while True:
        for container in of_job(daemon, job):
            removed += remove(container)
        if time.monotonic() >= deadline:
            return removed
        time.sleep(POLL_S)


def of_job(daemon: Daemon, job: str) -> list[Any]:
    """Return the containers of a job, running or not."""
    return _containers(daemon, f"{JOB}={job}")


def remove_orphans(daemon: Daemon) -> int:
    """Remove containers whose owner, a process of this machine, is no more; return how many there were."""
    return sum(remove(one) for one in _containers(daemon, JOB) if _is_orphan(one.labels))


def remove(container: Any) -> bool:
    """Kill and remove a container; return whether it was there."""
    import docker

    try:
        container.remove(force=True, v=True)
    except docker.errors.NotFound:
        return False
    except docker.errors.APIError as error:
        if error.status_code != CONFLICT:  # somebody else is removing it
            raise
    return True


def _containers(daemon: Daemon, label: str) -> list[Any]:
    found: list[Any] = daemon.client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
    return found


def _is_orphan(found: dict[str, str]) -> bool:
    if found.get(HOST) != socket.gethostname():
        return False
    if found.get(BOOT) != processes.boot_id():
        return True
    owner = Process(pid=int(found.get(PID, 0)), start_ticks=int(found.get(START, 0)))
    return not processes.is_alive(owner)
