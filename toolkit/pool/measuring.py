"""What a model's processes take: their share of the memory that is really there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolkit import processes

PROC = Path("/proc")
KIB = 1024


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The processes of one model."""

    pids: frozenset[int] = frozenset()
    pss_bytes: int = 0  # memory of their own, and their share of what several have in common


def by_model(repository: str) -> dict[str, Measured]:
    """Return what the stubs of a repository's models take, by Triton's name of the model."""
    prefix = f"{repository.rstrip('/')}/"
    found: dict[str, Measured] = {}
    for one in processes.named("triton_python_backend_stub"[:15]):
        words = _read(one.pid, "cmdline").split("\0")
        path = next((word for word in words if word.startswith(prefix)), None)
        if path is None:
            continue
        name = path.removeprefix(prefix).split("/")[0]
        before = found.get(name, Measured())
        found[name] = Measured(pids=before.pids | {one.pid}, pss_bytes=before.pss_bytes + pss_bytes(one.pid))
    return found


def pss_bytes(pid: int) -> int:
    """Return a process's proportional set size; 0 for one that ended."""
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * KIB
    return 0


def _read(pid: int, name: str) -> str:
    try:
        return (PROC / str(pid) / name).read_text(encoding="utf-8", errors="replace")
    except OSError:  # it ended, or it is another user's
        return ""
