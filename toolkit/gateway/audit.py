"""The audit log of a running gateway: appended to, chained, and never the reason why an answer waits for a disk."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import UsageError
from toolkit.gateway import chain, refusals
from toolkit.gateway.refusals import Refusal

#: Records are in the kernel before an answer ends, and on the disk at most so much later.
SYNC_EVERY_S = 1.0
#: What may wait in memory for a disk to have room; what comes after it is only counted.
MOST_WAITING_BYTES = 32 << 20
RECORD_BYTES = 1 << 10  # of a record without its prompts, about


#: The kind of the record that says how many could neither be written nor kept.
LOST = "lost"


class AuditLog:
    """Appends records. What could not be written is kept, in order, until it can be."""

    def __init__(self, path: Path, *, is_required: bool) -> None:
        self._path = path
        self._is_required = is_required
        self._unwritten: deque[Mapping[str, Any]] = deque()
        self._waiting_bytes = self._lost = 0
        self._problem = ""
        with files.disk_errors_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._take()
        self._is_dirty = threading.Event()
        self._is_closing = threading.Event()
        self._syncer = threading.Thread(target=self._sync, name="audit", daemon=True)
        self._syncer.start()

    def _take(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"Another gateway writes the audit log {self._path}.", hint="Give this one another --audit FILE."
            ) from error
        os.fchmod(self._file, 0o600)
        self._end = chain.end_of(self._path)

    def need_writable(self) -> None:
        """Raise Refusal where requests must be recorded and cannot be: the disk is full, say."""
        if self._is_behind:
            self._write_out()
        if self._is_behind and self._is_required:
            raise Refusal(
                refusals.UNAVAILABLE,
                f"Requests cannot be recorded now ({self._problem}), and this server serves none unrecorded.",
                retry_after_s=10,
            )

    def append(self, fields: Mapping[str, Any]) -> None:
        """Add a record, now or as soon as it can be written."""
        if self._waiting_bytes < MOST_WAITING_BYTES:
            self._unwritten.append(fields)
            self._waiting_bytes += _bytes_of(fields)
        else:
            self._lost += 1
        self._write_out()

    @property
    def _is_behind(self) -> bool:
        return bool(self._unwritten or self._lost)

    def _write_out(self) -> None:
        while self._is_behind:
            lost = {"kind": LOST, "records": self._lost}
            try:
                self._mend()
                self._end = self._written(self._unwritten[0] if self._unwritten else lost)
            except OSError as error:
                self._problem = error.strerror or str(error)
                return
            if self._unwritten:
                self._waiting_bytes -= _bytes_of(self._unwritten.popleft())
            else:
                self._lost = 0
            self._is_dirty.set()

    def _mend(self) -> None:
        """Close a line that was left torn, and record what was."""
        if not self._end.is_ended:
            self._put(b"\n")
            self._end = dataclasses.replace(self._end, is_ended=True)
        if self._end.torn:
            self._end = self._written(chain.recovered(self._end.torn))

    def _written(self, fields: Mapping[str, Any]) -> chain.End:
        line, digest = chain.sealed(fields, sequence=self._end.sequence + 1, previous=self._end.hash)
        self._put(line + b"\n")
        return chain.End(sequence=self._end.sequence + 1, hash=digest)

    def _put(self, line: bytes) -> None:
        written = os.write(self._file, line)
        if written == len(line):
            return
        if written:  # the disk became full in the middle of it
            self._end = dataclasses.replace(self._end, torn=(*self._end.torn, line[:written]), is_ended=False)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _sync(self) -> None:
        while not self._is_closing.wait(SYNC_EVERY_S):
            if self._is_dirty.is_set():
                self._is_dirty.clear()
                try:
                    os.fdatasync(self._file)
                except OSError:  # a full disk may say so only now; it is tried again
                    self._is_dirty.set()

    def close(self) -> None:
        """Put everything on the disk."""
        self._is_closing.set()
        self._syncer.join()
        self._write_out()
        os.fsync(self._file)
        os.close(self._file)


def _bytes_of(fields: Mapping[str, Any]) -> int:
    return RECORD_BYTES + sum(map(len, fields.get("prompts", ())))
