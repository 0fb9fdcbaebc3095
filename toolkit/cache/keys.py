"""Keys: the hash of everything that a result depends on, and of nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from toolkit.files import canonical_json, sha256_text
from toolkit.hashes import sha256_of

PACKAGE = Path(__file__).parents[1]
#: Parts of trtk that no result depends on: what looks, serves, measures and talks.
WITHOUT = {"bench", "cache", "cli", "evaluate", "machine", "repository", "serve"}
#: What a build reads of a model's folder.
SOURCE_SUFFIXES = {".safetensors", ".json", ".jinja", ".model"}
STEP = "Read the source"
#: Less is read before anybody could wonder.
SHOWN_FROM_BYTES = 1 << 28
#: Words about a plan that change nothing of what it makes.
WORDS = {"choices", "sources", "notes", "papers", "title", "aliases", "reason", "confidence"}


def key_of(**parts: Any) -> str:
    """Return 32 hex digits of the parts and of trtk's own code."""
    return sha256_text(
        canonical_json({"code": code_digest(), **{name: wordless(part) for name, part in parts.items()}})
    )[:32]


def wordless(value: Any) -> Any:
    """Return JSON values without what only explains them."""
    if isinstance(value, Mapping):
        return {name: wordless(item) for name, item in value.items() if name not in WORDS}
    if isinstance(value, (list, tuple)):
        return [wordless(item) for item in value]
    return value


def sources_of(folder: Path, *, progress: Callable[[str, float, float], None] | None = None) -> dict[str, str]:
    """Return the sha256 of every file that a build reads of a model's folder."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in SOURCE_SUFFIXES and path.is_file())
    total, done, found = sum(path.stat().st_size for path in paths), 0, {}
    for path in paths:
        if progress and total >= SHOWN_FROM_BYTES:
            progress(STEP, done, total)
        found[path.name] = sha256_of(path)
        done += path.stat().st_size
    if progress and total >= SHOWN_FROM_BYTES:
        progress(STEP, total, total)
    return found


@functools.cache
def code_digest() -> str:
    """Return a hash of the code that makes results: a changed algorithm does not get an old one's result."""
    files = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in WITHOUT)
    return sha256_text("".join(sha256_text(path.read_text(encoding="utf-8")) for path in files))
