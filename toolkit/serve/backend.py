"""What a serving backend is: a way to turn a ServeSpec into a command that runs Triton."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from toolkit import registry, workspace
from toolkit.specs import Progress, ServeSpec

#: The environment variable that every process of a server carries; its value is the server's id.
MARKER = "TRTK_SERVER_ID"
#: The one that tells a server's companions the secret of Triton's closed APIs, and the header that carries it.
SECRET, SECRET_HEADER = "TRTK_CLOSED_SECRET", "closed"
#: The one that names the stop file, which the CPU engine looks for.
STOP_FILE = "TRTK_STOP_FILE"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who a server is: an id that it tells everybody, and the secret of its closed APIs, which it tells nobody."""

    server_id: str
    secret: str


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A server's command line and what it adds to the environment."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    shown: tuple[str, ...] = ()  # what a user would type for the same; empty: just that


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What a backend knows of a server beyond its own process."""

    problem: str = ""
    container: str = ""  # its id


def nothing_inside(server_id: str) -> Inside:
    """Say nothing: the server is the process."""
    del server_id
    return Inside()


def nothing_left(server_id: str, *, was_killed: bool) -> int:
    """Remove nothing: what is left of the server are processes and shared memory."""
    del server_id, was_killed
    return 0


class Clear(Protocol):
    """Removes what is left of a server beyond its processes; returns how much there was."""

    def __call__(self, server_id: str, *, was_killed: bool) -> int:
        """Remove it."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One way to run Triton.

    `prepare` makes what it needs on disk and decides what the spec leaves open; `launch` only says the command; `look`
    is asked about a server that lives, and `clear` removes what is left of one beyond its processes.
    """

    name: str
    title: str
    prepare: Callable[[ServeSpec, Progress], ServeSpec]
    launch: Callable[[ServeSpec, Identity], Launch]
    check: Callable[[ServeSpec], None]
    look: Callable[[str], Inside] = nothing_inside
    clear: Clear = nothing_left
    note: str = ""  # said at every start
    exit_margin_s: float = 2.0  # what its process takes beyond the exit timeout when it does leave


def pick(name: str) -> Backend:
    """Return a backend by name; `auto` is the embedded one where nothing needs another."""
    table = registry.by_name(
        registry.entries_in("toolkit.serve.backends", "BACKEND", Backend), lambda backend: [backend.name]
    )
    return registry.pick(table, "embedded" if name == "auto" else name, kind="serving backend")


def stop_file(server_id: str) -> Path:
    """Return the file that tells a stopping server's models to end what they still do."""
    return workspace.state_dir().absolute() / f"{server_id}.stopping"


def shm_prefix(server_id: str) -> str:
    """Return how the names of a server's regions in /dev/shm begin."""
    return f"trtk_{server_id}_"


def triton_id(server_id: str) -> str:
    """Return the name that a server gives itself at /v2, so that nobody else's answer is taken for its own."""
    return f"trtk-{server_id}"
