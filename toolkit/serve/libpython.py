"""The shared libpython that Triton's Python stub links: Debian and Ubuntu keep it apart from `python3`.

Where it is missing and the system is one of these two, its package is downloaded with apt (which checks signatures) and
unpacked into the cache: no root is needed, and nothing is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from toolkit import workspace
from toolkit.files import disk_errors_named

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBRARY = f"libpython{PYTHON}.so.1.0"
PACKAGE = f"libpython{PYTHON}"
APT_TIMEOUT_S = 180


def folders() -> list[Path]:
    """Return where a libpython of this Python is, besides the system's own library path."""
    places = [Path(sysconfig.get_config_var("LIBDIR") or "/"), Path(sys.base_prefix) / "lib", _cached()]
    return [folder for folder in dict.fromkeys(places) if (folder / LIBRARY).is_file()]


def fetch() -> bool:
    """Download the package into the cache; return False where apt is not there or has no such package."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return False
    target = _cached()
    with disk_errors_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".libpython-", dir=target.parent) as scratch:
            package = _downloaded(Path(scratch))
            if package is None:
                return False
            unpacked = Path(scratch) / "unpacked"
            subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True, capture_output=True)
            found = next(iter(sorted(unpacked.rglob(LIBRARY))), None)
            if found is None:
                return False
            made = Path(scratch) / "lib"
            made.mkdir()
            shutil.copyfile(found, made / LIBRARY)
            if not target.is_dir():
                made.rename(target)
    return True


def _downloaded(scratch: Path) -> Path | None:
    """Download with the lists that the system has, else with lists of our own; return the .deb."""
    lists = scratch / "lists"
    (lists / "partial").mkdir(parents=True)
    own = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={scratch}", "-o", "APT::Sandbox::User="]
    for commands in ([["download", PACKAGE]], [[*own, "update"], [*own, "download", PACKAGE]]):
        if all(_apt(command, scratch) for command in commands):
            return next(iter(sorted(scratch.glob(f"{PACKAGE}_*.deb"))), None)
    return None


def _apt(arguments: list[str], scratch: Path) -> bool:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            ["apt-get", "-q", *arguments],
            cwd=scratch,
            env=environment,
            check=False,
            capture_output=True,
            timeout=APT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _cached() -> Path:
    return (workspace.cache_dir() / "triton" / f"libpython{PYTHON}").absolute()
