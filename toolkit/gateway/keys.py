"""API keys: the file holds their hashes, a key itself is seen once, by whoever made it."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from toolkit import files, specs
from toolkit.errors import UnknownName, UsageError

SCHEMA_VERSION = 1
ID_BYTES, SECRET_BYTES = 4, 32
KEY = re.compile(r"^trtk-(?P<id>[0-9a-f]{8})-(?P<secret>[A-Za-z0-9_-]{43})$")
#: Compared with when there is no such key, so that both answers take as long.
NOBODY = hashlib.sha256(b"nobody").hexdigest()
MAKE_HINT = "`trtk keys add NAME` makes the file and a key."


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """What is kept of a key."""

    id: str  # in the audit log, and in the key itself
    name: str
    sha256: str  # of the secret: 256 random bits need no slow hash
    created: str  # ISO 8601, UTC


@dataclass(frozen=True, kw_only=True)
class KeyFile:
    """All keys of one file."""

    schema_version: int = SCHEMA_VERSION
    keys: tuple[ApiKey, ...] = ()


def read(path: Path) -> tuple[ApiKey, ...]:
    """Return the keys of a file; raises UsageError where it is none, or others may write or read it."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found_file = path.stat()
    except FileNotFoundError as error:
        raise UsageError(f"There is no key file {path}.", hint=MAKE_HINT) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no key file: {error}.", hint=MAKE_HINT) from error
    mode = stat.S_IMODE(found_file.st_mode)
    # A Secret that is mounted belongs to root, and its reader is in the file's group.
    if mode & (0o077 if found_file.st_uid == os.getuid() else 0o037):
        raise UsageError(f"{path} has mode {mode:04o}: others may look into it.", hint=f"chmod 600 {path}")
    try:
        found = specs.from_json(KeyFile, document)
    except (TypeError, AttributeError) as error:
        raise UsageError(f"{path} is no key file: {error}.", hint=MAKE_HINT) from error
    if found.schema_version != SCHEMA_VERSION:
        raise UsageError(f"{path} has schema_version {found.schema_version}, not {SCHEMA_VERSION}.")
    return found.keys


def add(path: Path, name: str) -> str:
    """Make a key and return it; only its hash stays."""
    if not name.strip() or not name.isprintable():
        raise UsageError(f"{name!r} is no name for a key.", hint="Name who will use it: trtk keys add team-search")
    key_id, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    with files.FolderLock(path):
        keys = read(path) if path.exists() else ()
        if any(key.name == name for key in keys):
            raise UsageError(
                f"{path} has a key named {name!r} already.", hint=f"`trtk keys rm {quote(name)}` takes it back."
            )
        _write(path, (*keys, ApiKey(id=key_id, name=name, sha256=_hash(secret), created=created)))
    return f"trtk-{key_id}-{secret}"


def remove(path: Path, name: str) -> ApiKey:
    """Take a key back, by its name or id; a running gateway sees it with its next request."""
    read(path)  # where there is no such file, no lock is to be made beside it
    with files.FolderLock(path):
        keys = read(path)
        found = next((key for key in keys if name in {key.name, key.id}), None)
        if found is None:
            raise UnknownName("key", name, [key.name for key in keys], command="trtk keys ls")
        _write(path, [key for key in keys if key is not found])
    return found


def _write(path: Path, keys: Sequence[ApiKey]) -> None:
    with files.disk_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(files.canonical_json(specs.to_json(KeyFile(keys=tuple(keys)))))
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Keys:
    """The keys of a running gateway: read again when the file changed, so that a key taken back opens nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._hashes: dict[str, str] = {}
        self._refresh()

    def id_of(self, presented: str) -> str | None:
        """Return the id of a key that is let in, None for any other."""
        self._refresh()
        found = KEY.match(presented)
        key_id = found["id"] if found else ""
        expected = self._hashes.get(key_id, NOBODY)
        is_right = hmac.compare_digest(_hash(found["secret"] if found else presented), expected)
        return key_id if is_right and key_id in self._hashes else None

    def _refresh(self) -> None:
        try:
            state = self._path.stat()
        except OSError as error:
            raise UsageError(f"The key file {self._path} is gone.", hint=MAKE_HINT) from error
        now = (state.st_mtime_ns, state.st_ino, state.st_size)
        if now != self._seen:
            self._hashes = {key.id: key.sha256 for key in read(self._path)}
            self._seen = now
