"""A built folder as one file: a tar of what its manifest lists, compressed; the same build gives the same bytes."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from toolkit.engine.toolchain import REPOSITORY
from toolkit.errors import MissingError, UsageError
from toolkit.files import canonical_json, need_free_bytes, sha256_text, written_whole
from toolkit.specs import EngineManifest, FileRecord, Progress, manifest_from_json, no_progress, to_json
from toolkit.verifying import need_as_built
from toolkit.workspace import slug

SUFFIX = ".tar.zst"
MANIFEST = "manifest.json"
STEP = "Write the bundle"
#: Weights hardly compress: a higher level costs time and gains nothing.
LEVEL = 3
PROGRAMS = {"start.py"}
#: What says what is in an archive, and how large the largest of it may be: a list of all files.
OUTLINE, OUTLINE_BYTES = {"bundle.json", MANIFEST, "start.py"}, 64 << 20


def pack(folder: Path, archive: Path, *, progress: Progress = no_progress) -> EngineManifest:
    """Write FOLDER's built files into ARCHIVE, whole or not at all; return the manifest that is in it.

    What was added since, such as an engine that was compiled at first start, stays out.
    """
    manifest = portable(manifest_in(folder))
    need_as_built(folder, manifest.files, closed=REPOSITORY, progress=progress)
    total = sum(record.size_bytes for record in manifest.files)
    need_free_bytes(archive, total, what=f"The bundle {archive.name}")
    top, done = manifest.name, 0
    text = canonical_json(to_json(manifest)).encode()
    with (
        written_whole(archive) as temporary,
        compressed(temporary) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as tar,
    ):
        for record in manifest.files:
            progress(STEP, done, total)
            with (folder / record.path).open("rb") as content:
                tar.addfile(entry(f"{top}/{record.path}", record.size_bytes), content)
            done += record.size_bytes
        tar.addfile(entry(f"{top}/{MANIFEST}", len(text)), io.BytesIO(text))
    progress(STEP, max(total, 1), max(total, 1))
    return manifest


def manifest_in(folder: Path) -> EngineManifest:
    """Return a folder's manifest; raises UsageError where there is none."""
    path = folder / MANIFEST
    try:
        return manifest_from_json(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{folder} holds no {MANIFEST}.", hint="Give a folder that `trtk build` made.") from error
    except ValueError as error:
        raise UsageError(f"{path} is not a manifest of this version of trtk: {error}.", hint="Build again.") from error


def portable(manifest: EngineManifest) -> EngineManifest:
    """Return a manifest without what differs between two builds of the same: times, places, and the folder's name."""
    document = to_json(manifest)
    model: dict[str, Any] = {**document["model"], "path": ""}
    model["shards"] = [{**shard, "mtime_ns": 0} for shard in model.get("shards", ())]
    plan = document["plan"]
    origin = Path(model["name"]).name.split("@")[0]
    name = slug(f"{origin}-{plan['gpu']['name']}-{plan['conversion']['recipe']['name']}")
    same = {"name": name, "model": model, "durations_s": {}, "reused": []}
    return manifest_from_json({**document, **same, "files": sorted(document["files"], key=lambda one: one["path"])})


def content_id(files: tuple[FileRecord, ...]) -> str:
    """Return the hash of all files of a build: two builds are the same exactly when these are."""
    return sha256_text(canonical_json(sorted([record.path, record.size_bytes, record.sha256] for record in files)))


def entry(name: str, size: int) -> tarfile.TarInfo:
    """Return a file's header, with nothing of this machine in it."""
    made = tarfile.TarInfo(name)
    made.size = size
    made.mode = 0o755 if Path(name).name in PROGRAMS else 0o644
    return made


def outline(archive: Path, folder: Path) -> Path:
    """Write what describes an archive's build below FOLDER, and nothing large; return the built folder's place there.

    The manifest is the last file of an archive: all of it is read.
    """
    found: Path | None = None
    try:
        with (
            archive.open("rb") as raw,
            _zstandard().ZstdDecompressor().stream_reader(raw) as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            for member in tar:
                top, _, name = member.name.partition("/")
                if name in OUTLINE and member.isfile() and slug(top) == top and member.size <= OUTLINE_BYTES:
                    found = folder / top
                    found.mkdir(exist_ok=True)
                    content = tar.extractfile(member)
                    (found / name).write_bytes(content.read() if content else b"")
    except (tarfile.TarError, _zstandard().ZstdError, EOFError) as error:
        raise UsageError(f"{archive} is no bundle: {error}.", hint="`trtk bundle ENGINE` makes one.") from error
    if found is None or not (found / MANIFEST).is_file():
        raise UsageError(f"{archive} holds no {MANIFEST}.", hint="`trtk bundle ENGINE` makes a bundle.")
    return found


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise MissingError("zstandard is not installed here.", hint="pip install zstandard") from error
    return zstandard


@contextmanager
def compressed(path: Path) -> Iterator[IO[bytes]]:
    """Yield a stream that compresses into PATH; the bytes do not depend on how many threads do it."""
    compressor = _zstandard().ZstdCompressor(level=LEVEL, threads=max(1, os.cpu_count() or 1), write_checksum=True)
    with path.open("wb") as raw, compressor.stream_writer(raw, closefd=False) as stream:
        yield stream
