"""Starting one process of a server: in a session of its own, with the server's log as its output."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit import processes
from toolkit.processes import Process


def spawn(argv: Sequence[str], environment: Mapping[str, str], *, log: Path, stdin: int | None = None) -> Process:
    """Start a process away from the working folder, which models could import from."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    source = os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", 'cd "$0" && exec "$@"', str(log.parent), *argv],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
                *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inherited()),
            ],
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )
    finally:
        os.close(output)
        os.close(source)
    return processes.process(pid) or Process(pid=pid, start_ticks=0)


def _inherited() -> list[int]:
    """Return what the shell left open for this process: a lock among it would be held as long as the server lives."""
    found = []
    for descriptor in (int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
        try:
            is_handed_on = descriptor > 2 and os.get_inheritable(descriptor)
        except OSError:  # the folder's own, closed by now
            continue
        if is_handed_on:
            found.append(descriptor)
    return found
