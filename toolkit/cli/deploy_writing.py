"""The output folder of `trtk deploy`: there whole or not at all, and nothing of a user's is lost in it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from toolkit.deploy import RECORD
from toolkit.deploy import WRITTEN as WRITTEN_FILES
from toolkit.errors import UsageError
from toolkit.files import FolderLock, disk_errors_named, replace_folder, sha256_file, write_text

#: Of a folder that is the same again.
UNCHANGED, WRITTEN, REPLACED = "unchanged", "written", "replaced"


def write(texts: Mapping[str, str], folder: Path) -> str:
    """Write the files into FOLDER; return whether they were new, replaced older ones, or were there.

    What a user put there, a state of Terraform's or a file of passwords, stays; what a user changed is refused.
    """
    need_ours(folder)
    folder = folder.resolve()  # where a link leads, not in its place
    with FolderLock(folder):
        there = _files(folder)
        ours = {RECORD: "", **_written(folder)} if there else {}
        _need_unedited(texts, folder, there=there, ours=ours)
        if (
            all(name in there and _is(there[name], text) for name, text in texts.items())
            and not ours.keys() - texts.keys()
        ):
            return UNCHANGED
        if there.keys() - ours.keys():
            _bring_up_to_date(texts, folder, stale=ours.keys() - texts.keys())
        else:
            _replace(texts, folder)
    return REPLACED if there else WRITTEN


def _replace(texts: Mapping[str, str], folder: Path) -> None:
    with disk_errors_named(folder):
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        with disk_errors_named(folder):
            work.chmod(0o755)
            for name, text in texts.items():
                _put(work / name, text)
            replace_folder(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _bring_up_to_date(texts: Mapping[str, str], folder: Path, *, stale: AbstractSet[str]) -> None:
    """Write file by file, the record last: a run that was cut off is seen as one, and can be done again."""
    with disk_errors_named(folder):
        for name in sorted(texts.keys() - {RECORD}):
            _put(folder / name, texts[name])
        for name in stale:
            (folder / name).unlink(missing_ok=True)
        _put(folder / RECORD, texts[RECORD])


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text, mode=0o755 if text.startswith("#!") else 0o644)


def _files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


def _written(folder: Path) -> dict[str, str]:
    """Return what was written here last, by name, with its sha256."""
    try:
        document = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except ValueError:
        document = None
    found = document.get(WRITTEN_FILES) if isinstance(document, dict) else None
    return {str(name): str(digest) for name, digest in found.items()} if isinstance(found, dict) else {}


def _need_unedited(
    texts: Mapping[str, str], folder: Path, *, there: Mapping[str, Path], ours: Mapping[str, str]
) -> None:
    changed = [
        name
        for name, path in sorted(there.items())
        if name in {*texts, *ours} - {RECORD}
        and not _is_as_written(path, ours.get(name))
        and not _is(path, texts.get(name))
    ]
    if changed:
        raise UsageError(
            f"{folder} holds {', '.join(changed[:3])}{' and more' if len(changed) > 3 else ''}, "
            "which `trtk deploy` did not write as it is now.",
            hint="Give another folder with -o, or move that away.",
        )


def _is(path: Path, text: str | None) -> bool:
    return text is not None and path.is_file() and path.read_bytes() == text.encode()


def _is_as_written(path: Path, digest: str | None) -> bool:
    return path.is_file() and sha256_file(path) == digest


def need_ours(folder: Path) -> None:
    """Raise UsageError where FOLDER holds what no `trtk deploy` wrote."""
    if folder.name in {"", ".."} or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"-o '{folder}' names no folder to make.", hint="Try -o deploy/NAME.")
    if file := next((path for path in folder.parents if path.exists() and not path.is_dir()), None):
        raise UsageError(f"{file} is a file, not a folder.", hint="Give another folder with -o.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise UsageError(f"{folder} is there and was not made by `trtk deploy`.", hint="Give another folder with -o.")
