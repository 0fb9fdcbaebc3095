"""Is a folder what was built? Every file of a manifest is compared with it before it is served or handed on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from toolkit.errors import BuildError
from toolkit.hashes import sha256_of
from toolkit.specs import FileRecord, Progress, no_progress

STEP = "Check the files"
#: Written by Python beside the code that it runs.
PASSED_OVER = "__pycache__"


def need_as_built(
    folder: Path, records: Iterable[FileRecord], *, closed: str = "", progress: Progress = no_progress
) -> None:
    """Raise BuildError unless every file is as its record says, and CLOSED, a folder in it, holds no other file.

    Hashes are remembered while nobody touches a file, so that only the first check reads everything.
    """
    known = {record.path: record for record in records}
    total = sum(record.size_bytes for record in known.values())
    done = 0
    for record in known.values():
        progress(STEP, done, total)
        if fault := _fault(folder / record.path, record):
            raise damaged(folder / record.path, fault)
        done += record.size_bytes
    progress(STEP, max(total, 1), max(total, 1))
    is_closed = closed and any(path.startswith(f"{closed}/") for path in known)
    for path in sorted((folder / closed).rglob("*")) if is_closed else ():
        if path.is_file() and PASSED_OVER not in path.parts and str(path.relative_to(folder)) not in known:
            raise damaged(path, "was not there")


def _fault(path: Path, record: FileRecord) -> str:
    if not path.is_file():
        return "is missing"
    if (size := path.stat().st_size) != record.size_bytes:
        return f"has {size} bytes instead of {record.size_bytes}"
    if (found := sha256_of(path)) != record.sha256:
        return f"has the sha256 {found[:16]}… instead of {record.sha256[:16]}…"
    return ""


def damaged(path: Path, fault: str) -> BuildError:
    """Return the error of a file that is not what was built."""
    return BuildError(
        f"{path} is not what was built: it {fault}.",
        hint="Build it again; for a change that you made, `trtk serve --no-verify` takes it as it is.",
    )
