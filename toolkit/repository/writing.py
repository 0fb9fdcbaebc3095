"""A repository on disk: the whole of it appears, or nothing."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit import files as disk
from toolkit.errors import UsageError

#: Names the files that were written and their hashes, so that an edit by hand is seen before it is overwritten.
RECORD = ".trtk-repository.json"


def write(
    files: Mapping[str, str], folder: Path, *, is_forced: bool = False, about: Mapping[str, Any] | None = None
) -> None:
    """Write a repository by rename; an older one that was written here and not edited since is replaced.

    ABOUT says what a later reader wants to know of it: the release that it is for.
    """
    if not is_forced:
        refuse_foreign(folder)
    with disk.disk_errors_named(folder), _sibling(folder) as made:
        for path, text in files.items():
            target = made / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        hashes = {path: disk.sha256_text(text) for path, text in files.items()}
        disk.write_json(
            made / RECORD, {"schema_version": 1, "files": hashes, **({"about": dict(about)} if about else {})}
        )
        made.chmod(0o755)
        _swap(made, folder)


def refuse_foreign(folder: Path) -> None:
    """Raise where writing would lose something that trtk did not make."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    changed = changed_files(folder)
    if changed:
        raise UsageError(
            f"{folder} holds {', '.join(changed[:3])}{' and more' if len(changed) > 3 else ''},"
            " which trtk did not write as it is now.",
            hint="Give another folder with -o, or move that one away; `trtk repo --force` writes over edits.",
        )


def changed_files(folder: Path) -> list[str]:
    """Return what differs from what was written: edited, added and missing files."""
    record = folder / RECORD
    written = record_of(folder).get("files")
    if not isinstance(written, dict):
        return [path.name for path in sorted(folder.iterdir())] if folder.is_dir() else [folder.name]
    present = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path != record
    }
    edited = {path for path in present & written.keys() if disk.sha256_file(folder / path) != written[path]}
    return sorted((present ^ written.keys()) | edited)


def record_of(folder: Path) -> dict[str, Any]:
    """Return what was written down of a repository; nothing where it is not one of ours."""
    try:
        document = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def texts_in(folder: Path) -> dict[str, str]:
    """Return the files of a repository on disk as they are now: path → text."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    texts = {str(path.relative_to(folder)): path.read_text(encoding="utf-8", errors="replace") for path in paths}
    texts.pop(RECORD, None)
    return texts


@contextlib.contextmanager
def _sibling(folder: Path) -> Iterator[Path]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _swap(made: Path, folder: Path) -> None:
    if not folder.exists():
        made.replace(folder)
        return
    old = made.with_suffix(".old")
    folder.replace(old)
    try:
        made.replace(folder)
    except OSError:
        old.replace(folder)
        raise
    shutil.rmtree(old)
