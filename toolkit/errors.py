"""Every way to stop, its exit code, and what the user reads.

TrtkError                1    something we have no better name for
├── UsageError           2    an option or a name that cannot be meant
│   └── UnknownName      2    a name that is not in a registry; says the nearest ones
├── PlanInfeasible       3    what was asked for cannot work on that GPU, flow or model
├── MissingError         4    this machine lacks something: a package, a program, disk space, a free port
├── BuildError           5    a build step failed: bad weights, a tool that stopped
├── ServerError          6    a server did not become ready, or died
└── GateError            7    an SLO or a quality gate was missed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TrtkError(Exception):
    """A sentence with the values in it, and a hint that names the next command."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(TrtkError):
    """The command line asks for something that cannot be meant."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that no registry entry has; the nearest known names are in the hint."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, command: str | None = None) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
        listing = f" `{command}` lists them all." if command else ""
        known_ones = f"Known: {', '.join(names[:12])}." if names else "There is none."
        hint = f"Did you mean {' or '.join(near)}?{listing}" if near else f"{known_ones}{listing}"
        super().__init__(f"There is no {kind} named {name!r}.", hint=hint)
        self.nearest = near


class PlanInfeasible(TrtkError):
    """The plan cannot work, whatever this machine has."""

    exit_code = 3


class MissingError(TrtkError):
    """This machine lacks something that can be installed, freed or started."""

    exit_code = 4


class BuildError(TrtkError):
    """A build step failed."""

    exit_code = 5


class ServerError(TrtkError):
    """A server did not become ready, or stopped."""

    exit_code = 6


class GateError(TrtkError):
    """An SLO or a quality gate was missed."""

    exit_code = 7
