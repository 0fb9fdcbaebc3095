"""The output folder of `trtk deploy`: there whole or not at all, and never in the place of somebody else's."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from toolkit.errors import UsageError
from toolkit.files import FolderLock, disk_errors_named, replace_folder

#: Of a folder that is the same again.
UNCHANGED, WRITTEN, REPLACED = "unchanged", "written", "replaced"


def write(texts: Mapping[str, str], folder: Path, *, record: str) -> str:
    """Write the files into FOLDER by rename; return whether they were new, replaced older ones, or were there."""
    need_ours(folder, record)
    with FolderLock(folder):
        if same(texts, folder):
            return UNCHANGED
        was_there = folder.exists()
        with disk_errors_named(folder):
            work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
        try:
            with disk_errors_named(folder):
                work.chmod(0o755)
                for name, text in texts.items():
                    path = work / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text, encoding="utf-8")
                    path.chmod(0o755 if text.startswith("#!") else 0o644)
                replace_folder(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return REPLACED if was_there else WRITTEN


def need_ours(folder: Path, record: str) -> None:
    """Raise UsageError where FOLDER holds what no `trtk deploy` wrote."""
    if folder.name in {"", ".."} or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"-o '{folder}' names no folder to make.", hint="Try -o deploy/NAME.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / record).is_file():
        raise UsageError(f"{folder} is there and was not made by `trtk deploy`.", hint="Give another folder with -o.")


def same(texts: Mapping[str, str], folder: Path) -> bool:
    """Whether FOLDER holds exactly these files."""
    if not folder.is_dir():
        return False
    there = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return there.keys() == texts.keys() and all(
        there[name].read_bytes() == text.encode() for name, text in texts.items()
    )
