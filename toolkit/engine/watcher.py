"""End a build's compiler and remove what it left when the trtk that owns it is killed, however it is killed.

Run as `python -m toolkit.engine.watcher KIND JOB SCRATCH` with a pipe as stdin whose other end only the owner holds:
the kernel closes that end even on kill -9. An owner that cleaned up itself says so before it closes its end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from toolkit import processes

CONTAINER, PROCESSES = "container", "processes"
#: The environment variable that every process of a local build carries; its value is the job.
MARKER = "TRTK_JOB"
DONE = b"done"
POLL_S = 0.05
KILL_WAIT_S = 10.0


@contextlib.contextmanager
def watching(kind: str, job: str, scratch: Path) -> Iterator[None]:
    """Keep a watcher beside the block."""
    argv = [sys.executable, "-m", "toolkit.engine.watcher", kind, job, str(scratch)]
    own = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    assert own.stdin
    try:
        yield
    finally:
        with contextlib.suppress(BrokenPipeError):
            own.stdin.write(DONE)
            own.stdin.close()
        own.wait()


def end_processes(job: str) -> None:
    """Kill every process of a local build, and what those started."""
    deadline = time.monotonic() + KILL_WAIT_S
    while (left := processes.marked(MARKER, job)) and time.monotonic() < deadline:
        for one in left:
            processes.send(one, signal.SIGKILL)
        time.sleep(POLL_S)


def watch(kind: str, job: str, scratch: Path) -> None:
    """Wait until the owner is gone; clean up unless it did."""
    heard = b""
    while piece := os.read(sys.stdin.fileno(), 16):
        heard += piece
    if heard == DONE:
        return
    if kind == CONTAINER:
        from toolkit import containers

        containers.remove_of(containers.connect(), job, settle_s=containers.SETTLE_S)
    else:
        end_processes(job)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    watch(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
