"""The cache's folder: KIND/KEY/{entry.json, content/}, and tmp/ for what is being made or thrown away.

An entry appears whole, by rename, and leaves whole, by rename into tmp/. Taking and putting hold a shared lock,
removing an exclusive one. Where locks mean nothing (some network file systems), the renames still keep entries whole.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.cache.placing import place_all
from toolkit.errors import MissingError
from toolkit.files import disk_errors_named, free_bytes, replace_folder, sha256_file, write_json
from toolkit.hashes import sha256_of
from toolkit.workspace import cache_dir

CHECKPOINTS, ENGINES = "checkpoints", "engines"
KINDS = (CHECKPOINTS, ENGINES)
SCHEMA = 1
RECORD, CONTENT, TMP = "entry.json", "content", "tmp"
#: Another folder than cache_dir()/builds, or `off`.
VARIABLE = "TRTK_BUILD_CACHE"


def root() -> Path | None:
    """Return where results of builds are kept; None where they are not."""
    chosen = os.environ.get(VARIABLE)
    if chosen == "off":
        return None
    return Path(chosen) if chosen else cache_dir() / "builds"


class Store:
    """Takes folders out of the cache and puts them in; a store of no folder keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._root = folder

    @contextlib.contextmanager
    def making(self, kind: str, key: str, *, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Let one build make an entry; a second one of the same says so with ON_WAIT, waits, and finds it."""
        if self._root is None:
            yield
            return
        path = self._root / kind / f".{key}.lock"
        with _errors_named(self._root):
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("w")
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(stream, fcntl.LOCK_EX)  # freed by the kernel when the process dies, however it dies
            yield

    def take(self, kind: str, key: str, folder: Path) -> bool:
        """Make FOLDER an entry's content, every file checked against its hash; False where there is no such entry.

        An entry that is not what was kept is removed: somebody wrote into a file that is shared with it.
        """
        if self._root is None:
            return False
        entry = self._root / kind / key
        with locked(self._root, fcntl.LOCK_SH):
            record = record_of(entry)
            if record is None:
                return False
            made = folder.with_name(f".{folder.name}.taken")
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True)
            try:
                is_whole = _taken(entry / CONTENT, made, record["files"])
            except FileNotFoundError:  # removed by hand meanwhile
                is_whole = False
        if not is_whole:
            shutil.rmtree(made, ignore_errors=True)
            self.drop(kind, key)
            return False
        replace_folder(made, folder)
        with contextlib.suppress(OSError):
            os.utime(entry / RECORD)
        return True

    def put(self, kind: str, key: str, folder: Path, *, about: Mapping[str, Any]) -> bool:
        """Keep FOLDER's files under KEY; False where that is not possible, which no build fails for."""
        if self._root is None:
            return False
        try:
            with locked(self._root, fcntl.LOCK_SH), scratch(self._root) as work:
                files = _files(folder)
                need = sum(size for _, size in files)
                if free_bytes(self._root) < need and folder.stat().st_dev != work.stat().st_dev:
                    return False
                place_all(folder, work / CONTENT)
                records = [
                    {"path": name, "size_bytes": size, "sha256": sha256_of(work / CONTENT / name)}
                    for name, size in files
                ]
                now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
                document = {"schema_version": SCHEMA, "kind": kind, "key": key, "made_at": now, "about": dict(about)}
                write_json(work / RECORD, {**document, "files": records})
                (self._root / kind).mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(OSError):  # there already: its content is as good
                    work.rename(self._root / kind / key)
        except MissingError:  # a full or read-only disk
            return False
        return True

    def about(self, kind: str, key: str) -> dict[str, Any]:
        """Return what was said about an entry when it was put; nothing where there is none."""
        record = record_of(self._root / kind / key) if self._root else None
        return dict(record["about"]) if record else {}

    def drop(self, kind: str, key: str) -> bool:
        """Remove an entry; False where there is none."""
        if self._root is None or not (self._root / kind / key).is_dir():
            return False
        with (
            scratch(self._root) as work,
            locked(self._root, fcntl.LOCK_EX),
            contextlib.suppress(FileNotFoundError),  # removed by another process
        ):
            (self._root / kind / key).rename(work / "removed")
        return True


@contextlib.contextmanager
def _errors_named(folder: Path) -> Iterator[None]:
    """Say of a cache that cannot be written how to do without it: no option of a build names its folder."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror or error}: {error.filename}"
        hint = f"{VARIABLE} names another folder; {VARIABLE}=off does without one."
        raise MissingError(f"The build cache {folder} cannot be used: {reason}.", hint=hint) from error


def _taken(content: Path, made: Path, records: list[dict[str, Any]]) -> bool:
    place_all(content, made)
    found = dict(_files(made))
    if found != {record["path"]: record["size_bytes"] for record in records}:
        return False
    return all(sha256_file(made / record["path"]) == record["sha256"] for record in records)


def _files(folder: Path) -> list[tuple[str, int]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), path.stat().st_size) for path in paths]


def record_of(entry: Path) -> dict[str, Any] | None:
    """Return what an entry says about itself; None for a folder that is none, or of another version."""
    try:
        document = json.loads((entry / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_known = isinstance(document, dict) and document.get("schema_version") == SCHEMA
    return document if is_known and isinstance(document.get("files"), list) else None


@contextlib.contextmanager
def locked(folder: Path, how: int) -> Iterator[None]:
    """Hold the cache's lock, shared or exclusive."""
    with _errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    with stream:
        fcntl.flock(stream, how)
        yield


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Yield a folder of this process below tmp/; what processes left that died is removed on the way."""
    with _errors_named(folder):
        (folder / TMP).mkdir(parents=True, exist_ok=True)
        clean(folder)
        lock = tempfile.NamedTemporaryFile(dir=folder / TMP, suffix=".lock", delete=False)  # noqa: SIM115
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        work = Path(lock.name).with_suffix("")
        try:
            with disk_errors_named(work):
                work.mkdir()
                yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            Path(lock.name).unlink(missing_ok=True)


def clean(folder: Path) -> None:
    """Remove what dead processes left in tmp/: theirs is what nobody holds the lock of."""
    for path in sorted((folder / TMP).glob("*.lock")):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open() as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_size == 0 and _is_fresh(path):
                continue  # made a moment ago, and about to be locked
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)


def _is_fresh(path: Path) -> bool:
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    return now - path.stat().st_mtime < 2 and not path.with_suffix("").exists()
