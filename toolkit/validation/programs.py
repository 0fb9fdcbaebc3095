"""Programs that validators run: where they are, and what they said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: No validator of a few files takes longer, the slowest starts a Python with many libraries.
TIMEOUT_S = 240.0
#: Nothing that a folder includes is fetched from elsewhere to look at it.
OFFLINE = {"COMPOSE_EXPERIMENTAL_GIT_REMOTE": "false", "COMPOSE_EXPERIMENTAL_OCI_REMOTE": "false"}


@dataclass(frozen=True, kw_only=True)
class Said:
    """How a program ended, with all that it said."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams."""
        return "\n".join(part.strip() for part in (self.out, self.err) if part.strip())


def found(name: str) -> Path | None:
    """Return where a program is: beside this Python, where pip puts it, or on the PATH."""
    beside = Path(sys.executable).with_name(name)
    if beside.is_file():
        return beside
    path = shutil.which(name)
    return Path(path) if path else None


def run(program: Path, *arguments: str, cwd: Path) -> Said:
    """Run a program to its end."""
    return run_line([str(program), *arguments], cwd=cwd)


def run_line(line: Sequence[str], *, cwd: Path) -> Said:
    """Run a command line to its end; one that takes too long is one that failed."""
    try:
        done = subprocess.run(  # noqa: PLW1510 - the code is looked at
            line, cwd=cwd, env=os.environ | OFFLINE, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return Said(code=124, out="", err=f"{Path(line[0]).name} took longer than {TIMEOUT_S:.0f} s")
    return Said(code=done.returncode, out=done.stdout, err=done.stderr)
