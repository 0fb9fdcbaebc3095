"""Where things are kept: engines/, model_repository/, reports/ in the working folder, downloads in the cache."""

from __future__ import annotations

import os
import re
from pathlib import Path


def engine_dir(name: str) -> Path:
    """Return the default folder of a built engine."""
    return Path("engines") / name


def repository_dir(name: str) -> Path:
    """Return the default folder of a model repository that is written alone."""
    return Path("model_repository") / name


def reports_dir() -> Path:
    """Return the default folder of load-test reports."""
    return Path("reports")


def cache_dir() -> Path:
    """Return the per-user cache: $TRTK_CACHE, else $XDG_CACHE_HOME/trtk, else ~/.cache/trtk."""
    if chosen := os.environ.get("TRTK_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trtk"


def state_dir() -> Path:
    """Return where running servers are recorded: $TRTK_STATE, else $XDG_STATE_HOME/trtk, else ~/.local/state/trtk."""
    if chosen := os.environ.get("TRTK_STATE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "trtk"


def slug(text: str) -> str:
    """Return a text as a folder name: lower case letters, digits, dots and single dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unnamed"
