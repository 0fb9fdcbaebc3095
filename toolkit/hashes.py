"""Hashes of large files, remembered: a file that nobody has touched since is not read again."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from toolkit.errors import MissingError
from toolkit.files import sha256_file, write_json
from toolkit.workspace import cache_dir

#: Reading a smaller file is as fast as looking it up.
REMEMBERED_FROM_BYTES = 1 << 20
#: File times move in steps of a few milliseconds: a change within the step of the last one could not be seen.
SETTLING_S = 0.05


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file's bytes.

    A digest is remembered with the file's identity, size and times. The time of the last change of the inode (ctime)
    is among them, which no program can set: an edit that puts the old modification time back is still seen.
    """
    stat = path.stat()
    if stat.st_size < REMEMBERED_FROM_BYTES:
        return sha256_file(path)
    if known := _remembered(stat):
        return known
    time.sleep(max(0.0, SETTLING_S - (time.time() - stat.st_ctime)) if stat.st_ctime <= time.time() else 0.0)
    before = path.stat()
    digest = sha256_file(path)
    if _identity(path.stat()) == _identity(before):
        _remember(before, digest)
    return digest


def memory_dir() -> Path:
    """Return where digests are remembered: one small file for each large one, by inode, so that hard links share."""
    return cache_dir() / "hashes"


def forget(*, before_s: float) -> int:
    """Remove what was remembered before a time (seconds since the epoch); return how much it was.

    What processes left that were killed while they wrote goes too. A file that is asked for again is read again.
    """
    old = [note for note in memory_dir().glob("*") if _changed_at_s(note) < before_s]
    for note in [*old, *memory_dir().glob(".*.part")]:
        note.unlink(missing_ok=True)
    return len(old)


def _changed_at_s(note: Path) -> float:
    try:
        return note.stat().st_mtime
    except FileNotFoundError:  # another process forgets too
        return float("inf")


def _identity(stat: os.stat_result) -> list[int]:
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _note(stat: os.stat_result) -> Path:
    return memory_dir() / f"{stat.st_dev:x}-{stat.st_ino:x}.json"


def _remembered(stat: os.stat_result) -> str | None:
    try:
        note = json.loads(_note(stat).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_same = isinstance(note, dict) and note.get("file") == _identity(stat)
    return str(note["sha256"]) if is_same and "sha256" in note else None


def _remember(stat: os.stat_result, digest: str) -> None:
    try:
        write_json(_note(stat), {"file": _identity(stat), "sha256": digest})
    except (MissingError, OSError):  # a full, read-only or blocked cache: the digest is right all the same
        return
