"""What is inside each Triton container release with TensorRT-LLM: one TOML file each."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from toolkit.registry import by_name, pick, toml_entry
from toolkit.releases.contents import build_tool_of, llm_api_of
from toolkit.specs import Release

__all__ = ["AUTO", "build_tool_of", "catalogue", "default", "facts_of", "get", "llm_api_of", "read"]

FOLDER = Path(__file__).parent
#: What a user may write for "the one that trtk recommends".
AUTO = "auto"


def read(path: Path) -> Release:
    """Return the release that one TOML file describes; a key that Release does not have is an error."""
    return toml_entry(path, Release)


@functools.cache
def catalogue() -> tuple[Release, ...]:
    """Return every release that trtk knows, newest first."""
    return tuple(sorted((read(path) for path in FOLDER.glob("*.toml")), key=lambda release: release.name, reverse=True))


def get(name: str) -> Release:
    """Return a release by its tag (`26.07`), its image, or `auto` for the default."""
    if name == AUTO:
        return default()
    table = by_name(catalogue(), lambda release: (release.name, release.image))
    return pick(table, name, kind="release", command="trtk releases")


def default() -> Release:
    """Return the release that trtk builds for unless told otherwise."""
    (only,) = (release for release in catalogue() if release.is_default)
    return only


def facts_of(release: Release) -> dict[str, Any]:
    """Return what a plan's target is told of a release."""
    return {
        "release": release,
        "tool": build_tool_of(release),
        "api": llm_api_of(release),
        "default_release": default(),
    }
