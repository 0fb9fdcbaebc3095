"""What /proc says: which processes belong together, whether one is still the one we started, who holds a port."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
#: Field numbers of /proc/PID/stat after the command name (proc(5), less the first two).
STATE, PARENT, SESSION, START_TICKS = 0, 1, 3, 19
LISTENING = "0A"
#: A parent that waits for its children has noticed an end within this time.
SETTLE_S = 0.3


@dataclass(frozen=True, kw_only=True, order=True)
class Process:
    """A process for good: a pid alone is used again, a pid with its start time is not."""

    pid: int
    start_ticks: int


def process(pid: int) -> Process | None:
    """Return the living process PID; a zombie is not living."""
    fields = _stat(pid)
    if fields is None or fields[STATE] in "ZX":
        return None
    return Process(pid=pid, start_ticks=int(fields[START_TICKS]))


def this_process() -> Process:
    """Return the calling process."""
    found = process(os.getpid())
    assert found is not None
    return found


def is_alive(one: Process) -> bool:
    """Whether exactly this process still lives."""
    return process(one.pid) == one


def uptime_s(one: Process) -> float:
    """Return how long ago a process started."""
    since_boot = float((PROC / "uptime").read_text(encoding="ascii").split()[0])
    return max(0.0, since_boot - one.start_ticks / os.sysconf("SC_CLK_TCK"))


def boot_id() -> str:
    """Return the id of this boot: start times of another boot mean nothing."""
    return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def marked(variable: str, value: str) -> set[Process]:
    """Return the living processes that were started with VARIABLE=VALUE, and what they started."""
    wanted = f"{variable}={value}".encode()
    return {one for one in _all() if wanted in _read(one.pid, "environ").split(b"\0")}


def in_session(session: int) -> set[Process]:
    """Return the living processes of a session."""
    return {one for one in _all() if (fields := _stat(one.pid)) and int(fields[SESSION]) == session}


def dead_children(parent: int) -> list[int]:
    """Return the pids of children that ended and that the parent takes no notice of."""
    found = _zombies(parent)
    if found:
        time.sleep(SETTLE_S)
        left = set(_zombies(parent))
        found = [pid for pid in found if pid in left]
    return found


def _zombies(parent: int) -> list[int]:
    found = [(pid, fields) for pid in _children(parent) if (fields := _stat(pid))]
    return [pid for pid, fields in found if fields[STATE] == "Z" and int(fields[PARENT]) == parent]


def _children(parent: int) -> list[int]:
    """Return children as the kernel lists them; every process where it keeps no such list."""
    try:
        lists = [(task / "children").read_text(encoding="ascii") for task in (PROC / str(parent) / "task").iterdir()]
    except OSError:
        return _pids()
    return sorted({int(pid) for line in lists for pid in line.split()})


def descendants(ancestor: int, name: str) -> list[int]:
    """Return the living of this name among a process and all that it started."""
    parents = {pid: int(fields[PARENT]) for pid in _pids() if (fields := _stat(pid))}
    family = {ancestor}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return sorted(one.pid for one in named(name) if one.pid in family)


def send(one: Process, signal_number: int) -> None:
    """Send a signal, if exactly this process still lives and is ours to signal."""
    if is_alive(one):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal_number)


def reap(pid: int) -> int | None:
    """Collect a child that ended; return its exit code (negative: a signal), None while it runs or is no child."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if found else None


def exit_code(pid: int, *, timeout_s: float) -> int | None:
    """Return how a child that is ending ended: a killed process is not collectable until its last thread is gone."""
    deadline = time.monotonic() + timeout_s
    while (code := reap(pid)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return code


def how_it_ended(pid: int, *, timeout_s: float) -> str:
    """Return ` by SIGKILL` or ` with exit code 3`; empty where this process cannot know."""
    code = exit_code(pid, timeout_s=timeout_s)
    return "" if code is None else ended(code)


def ended(code: int) -> str:
    """Return ` by SIGKILL` or ` with exit code 3` for what `subprocess` and `waitstatus_to_exitcode` say."""
    return f" by {signal.Signals(-code).name}" if code < 0 else f" with exit code {code}"


def named(name: str) -> set[Process]:
    """Return the living processes of this name, of any user."""
    return {one for one in _all() if _read(one.pid, "comm").decode(errors="replace").strip() == name}


def command(pid: int) -> str:
    """Return a process's command line, shortened; its name where the line is not ours to read."""
    line = _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
    name = _read(pid, "comm").decode(errors="replace").strip()
    return (line[:77] + "...") if len(line) > 80 else (line or name)


def port_holder(port: int) -> int | None:
    """Return the pid that listens on a TCP port, where /proc lets us see it."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not sockets:
        return None
    for one in _all():
        with contextlib.suppress(OSError):
            for descriptor in (PROC / str(one.pid) / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in sockets:
                        return one.pid
    return None


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    found.add(fields[9])
    return found


def _all() -> list[Process]:
    return [one for pid in _pids() if (one := process(pid)) is not None]


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str] | None:
    # The command name is in brackets and may hold spaces and brackets itself.
    text = _read(pid, "stat").decode(errors="replace")
    return text[text.rindex(")") + 2 :].split() if ")" in text else None


def _read(pid: int, name: str) -> bytes:
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:  # it ended, or it is another user's
        return b""
