"""Large files of the hub, so that a download that was killed goes on within the file.

The hub's client gives each attempt a temporary file of its own, and a killed one begins anew. Here the part has one
name beside the place that the client's cache has for the content; when it is whole it takes that place, where the
client finds it.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, BinaryIO

#: Files at once: one connection rarely fills a line.
PARALLEL = 4
#: A smaller file is fetched again as fast.
RESUMED_FROM_BYTES = 8 << 20
DIGITS_OF_SHA256 = 64


class Counter:
    """Tells how many bytes have come, from several threads; raises in each of them once it was stopped."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report, self._lock = report, threading.Lock()
        self._done, self._is_stopped = 0.0, False

    def add(self, count: float) -> None:
        """Count bytes that have come."""
        if self._is_stopped:
            raise StoppedError
        with self._lock:
            self._done += count
            self._report(self._done)

    def stop(self) -> None:
        """Let every thread end with its next bytes."""
        self._is_stopped = True


class StoppedError(Exception):
    """Another file failed, or the user has had enough."""


class _Counted:
    """A file that counts what is written to it; everything else is the file's own."""

    def __init__(self, stream: BinaryIO, counter: Counter) -> None:
        self._stream, self._counter = stream, counter

    def write(self, piece: bytes) -> int:
        written = self._stream.write(piece)
        self._stream.flush()  # what has come is there, however this process ends
        self._counter.add(len(piece))
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def fetch(hub: Any, repo: str, names: Iterable[str], *, commit: str, counter: Counter) -> None:
    """Fetch files of a commit into the hub client's cache, each from where an earlier attempt was left."""
    hub.utils.disable_progress_bars()
    with ThreadPoolExecutor(PARALLEL) as pool:
        jobs = [pool.submit(_fetch_one, hub, repo, name, commit=commit, counter=counter) for name in names]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            counter.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch_one(hub: Any, repo: str, name: str, *, commit: str, counter: Counter) -> None:
    url = hub.hf_hub_url(repo, name, revision=commit)
    asked = hub.get_hf_file_metadata(url)
    if not asked.size or len(asked.etag or "") != DIGITS_OF_SHA256:
        return  # no large file after all: the client fetches it
    blob = blobs_of(hub, repo) / asked.etag
    part = blob.with_name(f"{asked.etag}.part")
    blob.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process at a time; the kernel frees it, however that one ends
        if blob.exists():
            part.unlink(missing_ok=True)
            return
        with part.open("r+b") as stream:
            start = min(stream.seek(0, os.SEEK_END), asked.size)
            counter.add(start)
            headers = hub.utils.build_hf_headers()
            hub.file_download.http_get(
                url, _Counted(stream, counter), resume_size=start, headers=headers, expected_size=asked.size
            )
            os.fsync(stream.fileno())
        part.replace(blob)


def blobs_of(hub: Any, repo: str) -> Path:
    """Return where the hub's client keeps the contents of a model's files."""
    folder: str = hub.file_download.repo_folder_name(repo_id=repo, repo_type="model")
    return Path(hub.constants.HF_HUB_CACHE) / folder / "blobs"
