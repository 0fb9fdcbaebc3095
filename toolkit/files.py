"""Files that appear whole or not at all: atomic writes, hashes, canonical JSON."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.errors import MissingError, UsageError

CHUNK_BYTES = 1 << 22


def json_object(path: Path, *, hint: str) -> dict[str, Any]:
    """Return a file's JSON object; raises UsageError with a HINT when it is missing or something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"There is no {path}.", hint=hint) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not JSON: {error}.", hint=hint) from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} is no JSON object.", hint=hint)
    return document


def canonical_json(document: Any) -> str:
    """Return the one JSON text of a document: sorted keys, two spaces, a final newline."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def sha256_text(text: str) -> str:
    """Return the hex digest of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hex digest of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a text file by rename, so that a reader sees the old file or the new one."""
    with written_whole(path, mode=mode) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, document: Any) -> None:
    """Write canonical JSON by rename."""
    write_text(path, canonical_json(document))


@contextlib.contextmanager
def written_whole(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside PATH; on success it is flushed to disk and renamed, on any error removed."""
    with disk_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with disk_errors_named(path):
            yield temporary
            temporary.chmod(mode)  # mkstemp and some writers make private files
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors_named(path: Path) -> Iterator[None]:
    """Turn a full disk, a read-only folder and a missing permission into sentences that name the path."""
    try:
        yield
    except OSError as error:
        message = _DISK_ERRORS.get(error.errno or 0)
        if message is None:
            raise
        raise MissingError(message[0].format(path=path), hint=message[1].format(path=path)) from error


_DISK_ERRORS = {
    errno.ENOSPC: ("The disk is full: {path} could not be written.", "Free space or give another folder with -o."),
    errno.EDQUOT: ("The disk quota is used up: {path} could not be written.", "Give another folder with -o."),
    errno.EFBIG: ("{path} would be larger than this file system or process allows.", "Check `ulimit -f`."),
    errno.EROFS: ("{path} is on a read-only file system.", "Give another folder with -o."),
    errno.ENAMETOOLONG: ("The name of {path} is too long for its file system.", "Give a shorter name with -o."),
    errno.EEXIST: ("A file is where a folder has to be for {path}.", "Give another folder with -o."),
    errno.ENOTDIR: ("A file is where a folder has to be for {path}.", "Give another folder with -o."),
    errno.EACCES: ("There is no permission to write {path}.", "Give another folder with -o."),
}


def need_place_for(folder: Path) -> None:
    """Raise MissingError where FOLDER cannot be made or written to: for those who write after long work."""
    with disk_errors_named(folder):
        nearest = folder.absolute()
        while not nearest.exists():
            nearest = nearest.parent
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


class FolderLock:
    """Keeps two processes from making the same folder at once; the second waits for the first."""

    def __init__(self, folder: Path) -> None:
        self._path = folder.with_name(f".{folder.name}.lock")

    def __enter__(self) -> None:
        with disk_errors_named(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._stream = self._path.open("w")
            except FileNotFoundError as error:  # in /proc, say
                raise MissingError(
                    f"{self._path.parent} takes no new files.", hint="Give another folder with -o."
                ) from error
        fcntl.flock(self._stream, fcntl.LOCK_EX)  # freed by the kernel when the process dies, however it dies

    def __exit__(self, *exception: object) -> None:
        self._stream.close()


def need_new_folder(folder: Path, source: Path, *, example: str) -> None:
    """Raise UsageError where FOLDER is none that can be made, or holds SOURCE, which it would take the place of."""
    if folder.name in {"", ".."}:
        raise UsageError(f"-o '{folder}' names no folder to make.", hint=f"Try -o {example}.")
    if file := next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None):
        raise UsageError(f"{file} is a file, not a folder.", hint="Give another folder with -o.")
    if source.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"-o {folder} would replace the model itself.", hint="Give another folder with -o.")


def replace_folder(made: Path, folder: Path) -> None:
    """Put a finished folder in place by rename; the old one is gone only when the new one is there."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def free_bytes(path: Path) -> int:
    """Return the free bytes of the file system that PATH is or would be on."""
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def need_free_bytes(path: Path, needed: int, *, what: str) -> None:
    """Raise MissingError before any work when the disk cannot hold what will be written."""
    free = free_bytes(path)
    if free < needed:
        raise MissingError(
            f"{what} needs {needed / 1e9:.2f} GB, but {path} has {free / 1e9:.2f} GB free.",
            hint="Free space or give another folder with -o.",
        )
