"""The same bytes in a second place: shared where the file system can, never so that editing one changes the other
unnoticed.

A reflink shares until one side writes. A hard link shares for good, so only large files are linked, which nobody edits
by hand, and they become read-only; what gets past that (root may write) is found by its hash. Small files are copied.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

LINKED_FROM_BYTES = 1 << 20
FICLONE = 0x40049409  # linux/fs.h
READ_ONLY, EDITABLE = 0o444, 0o644


def place(source: Path, target: Path) -> None:
    """Make TARGET the same file as SOURCE: a reflink, a hard link, or a copy."""
    if source.stat().st_size >= LINKED_FROM_BYTES and not _reflink(source, target) and _hard_link(source, target):
        return
    if not target.exists():
        shutil.copyfile(source, target)
    target.chmod(EDITABLE)


def _reflink(source: Path, target: Path) -> bool:
    with source.open("rb") as reading, target.open("wb") as writing:
        try:
            fcntl.ioctl(writing.fileno(), FICLONE, reading.fileno())
        except OSError:  # another file system, or one that cannot
            target.unlink()
            return False
    return True


def _hard_link(source: Path, target: Path) -> bool:
    with contextlib.suppress(OSError):  # another file system, another user's file, or one that cannot
        os.link(source, target)
        target.chmod(READ_ONLY)
        return True
    return False


def place_all(source: Path, target: Path) -> list[str]:
    """Place every file of a folder; return their paths below it, in order."""
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        place(source / name, target / name)
    return names
