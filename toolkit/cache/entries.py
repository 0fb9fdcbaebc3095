"""What is in the cache, and what of it to let go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.cache.store import CONTENT, KINDS, RECORD, Store, clean, record_of


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One kept result."""

    kind: str
    key: str
    size_bytes: int
    freed_bytes: int  # on disk when it is removed: what no build folder shares
    made_at: str
    used_at_s: float  # since the epoch
    about: Mapping[str, Any] = field(default_factory=dict)  # for people: model, quant, ...


def entries(root: Path) -> list[Entry]:
    """Return what is kept, least recently used first."""
    found = [_entry(path) for kind in KINDS for path in (root / kind).glob("[!.]*")]
    return sorted((entry for entry in found if entry), key=lambda entry: (entry.used_at_s, entry.key))


def _entry(path: Path) -> Entry | None:
    record = record_of(path)
    if record is None:
        return None
    try:
        stats = [file.stat() for file in (path / CONTENT).rglob("*") if file.is_file()]
        used_at_s = (path / RECORD).stat().st_mtime
    except FileNotFoundError:  # removed by another process meanwhile
        return None
    return Entry(
        kind=record["kind"],
        key=record["key"],
        size_bytes=sum(stat.st_size for stat in stats),
        freed_bytes=sum(stat.st_size for stat in stats if stat.st_nlink == 1),
        made_at=record["made_at"],
        used_at_s=used_at_s,
        about=record["about"],
    )


def remove(root: Path, wanted: Iterable[Entry]) -> list[Entry]:
    """Remove entries; return those that were there."""
    store = Store(root)
    return [entry for entry in wanted if store.drop(entry.kind, entry.key)]


def collect(
    root: Path, *, now_s: float, max_bytes: int | None = None, older_than_s: float | None = None
) -> tuple[Entry, ...]:
    """Remove what was not used for OLDER_THAN_S, then the least recently used beyond MAX_BYTES, and old leftovers."""
    if root.is_dir():
        clean(root)
    kept = entries(root)
    leaving = [entry for entry in kept if older_than_s is not None and now_s - entry.used_at_s > older_than_s]
    staying = [entry for entry in kept if entry not in leaving]
    total = sum(entry.size_bytes for entry in staying)
    while max_bytes is not None and staying and total > max_bytes:
        leaving.append(staying.pop(0))
        total -= leaving[-1].size_bytes
    return tuple(remove(root, leaving))
