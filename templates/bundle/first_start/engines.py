"""The engine for this GPU and this image: found, or compiled once, whole or not at all."""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from first_start import BUNDLE, FAILED, MISSING, Refused, document, say
from first_start.hashes import records_of, sha256, verify
from first_start.machine import Gpu, tensorrt_version

RECORD = "trtk-engine.json"
LOG = "build.log"
TAIL_LINES = 15
PR_SET_PDEATHSIG = 1  # prctl(2)


def ensure(bundle: dict[str, Any], gpu: Gpu, engines: Path, *, files: list[Any], is_verified: bool) -> Path:
    """Return the folder of the engine for this GPU and this image, compiled now if it is not there."""
    key = f"sm{gpu.sm}-trtllm{bundle['tensorrt_llm']}-trt{tensorrt_version(bundle)}"
    for folder in (BUNDLE / "engine" / key, engines / key):
        if is_whole(folder, files, is_verified=is_verified):
            say(f"The engine {key} is there.")
            return folder
    folder = engines / key
    with disk_errors_named(engines):
        engines.mkdir(parents=True, exist_ok=True)
        with locked(engines / f".{key}.lock", key):
            if is_whole(folder, files, is_verified=False):  # another container made it while this one waited
                say(f"The engine {key} is there now.")
                return folder
            if is_verified:
                verify(BUNDLE, files, below=("checkpoint/",))
            build(bundle, gpu, folder)
    return folder


def is_whole(folder: Path, files: list[Any], *, is_verified: bool) -> bool:
    """Whether a compiled engine is there: one that the manifest lists, or one with a record of its own."""
    prefix = f"engine/{folder.name}/"
    built = [dict(record, path=record["path"][len(prefix) :]) for record in files if record["path"].startswith(prefix)]
    is_built_in = bool(built) and folder == BUNDLE / "engine" / folder.name
    if not is_built_in and not (folder / RECORD).is_file():
        return False
    if is_verified:
        verify(folder, built if is_built_in else records_of(folder / RECORD))
    return True


@contextlib.contextmanager
def locked(path: Path, key: str) -> Iterator[None]:
    """Let one container compile; the kernel frees the lock of one that dies, however it dies."""
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another container is compiling {key}; waiting for it.")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def disk_errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the disk quota is used up",
            errno.EROFS: "the file system is read-only",
            errno.EACCES: "there is no permission",
            errno.EPERM: "there is no permission",
        }
        if error.errno not in reasons:
            raise
        raise Refused(
            f"Nothing can be written to {path}: {reasons[error.errno]}.",
            hint="Mount a folder with room for the engine, writable for this user, and name it with --engines.",
            code=MISSING,
        ) from error


def build(bundle: dict[str, Any], gpu: Gpu, folder: Path) -> None:
    """Compile into a folder of its own and rename; whatever happens, nothing half-made has the engine's name."""
    engines = folder.parent
    for stale in engines.glob(f".{folder.name}.*.partial"):  # of a container that died: the lock is ours
        shutil.rmtree(stale, ignore_errors=True)
    need_room(engines, bundle)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=engines))
    try:
        work.chmod(0o755)
        made = work / "engine"
        timing, kept = work / "timing.cache", engines / f".{folder.name}.timing.cache"
        if kept.is_file():
            shutil.copyfile(kept, timing)
        words = {"{checkpoint}": str(BUNDLE / "checkpoint"), "{output}": str(made), "{timing_cache}": str(timing)}
        line = [words.get(word, word) for word in bundle["commands"][str(gpu.sm)]]
        say(f"Compiling for {gpu.name} (sm_{gpu.sm}): {' '.join(line)}")
        made.mkdir()
        compile_engine(line, work / LOG, engines)
        need_engine(made, bundle)
        seal(made, work / LOG)
        if timing.is_file():
            timing.replace(kept)
        put_in_place(made, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"The engine is in {folder}.")


def need_room(engines: Path, bundle: dict[str, Any]) -> None:
    needed = bundle["rank_weights_bytes"] * bundle["world_size"]
    free = shutil.disk_usage(engines).free
    if free < needed:
        raise Refused(
            f"The engine needs about {needed / 1e9:.1f} GB; {engines} has {free / 1e9:.1f} GB free.",
            hint="Free space, or mount a larger folder and name it with --engines.",
            code=MISSING,
        )


def compile_engine(line: list[str], log: Path, engines: Path) -> None:
    """Run trtllm-build; show and keep what it says. It dies with this process."""
    tail: list[str] = []
    with log.open("w", encoding="utf-8") as kept:
        try:
            child = subprocess.Popen(
                line,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        except FileNotFoundError:
            raise Refused(
                f"This image has no {line[0]}.", hint="Run it in the image that bundle.json names.", code=MISSING
            ) from None
        try:
            assert child.stdout
            follow(child.stdout, kept, tail)
            code = child.wait()
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    if code:
        raise failed(line[0], code, tail, engines)


def follow(stream: TextIO, kept: TextIO, tail: list[str]) -> None:
    for text in stream:
        sys.stderr.write(text)
        sys.stderr.flush()
        tail.append(text.rstrip())
        del tail[:-TAIL_LINES]
        kept.write(text)


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def failed(program: str, code: int, tail: list[str], engines: Path) -> Refused:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    said = "".join(f"\n  {line}" for line in tail)
    text = "\n".join(tail)
    if "No space left on device" in text or shutil.disk_usage(engines).free < 1 << 20:
        hint = f"The disk under {engines} is full: free space, or name a larger folder with --engines."
        return Refused(f"{program} {how}.{said}", hint=hint, code=MISSING)
    hint = "Its last lines are above; the same start tries again."
    if code == -signal.SIGKILL:
        hint = "The kernel kills for memory: give the container more; compiling needs about twice the weights."
    return Refused(f"{program} {how}.{said}", hint=hint, code=FAILED)


def need_engine(made: Path, bundle: dict[str, Any]) -> None:
    """Raise unless every rank's engine is there, made by the release that will serve it."""
    ranks = [made / f"rank{rank}.engine" for rank in range(bundle["world_size"])]
    missing = [path.name for path in (*ranks, made / "config.json") if not path.is_file()]
    version = document(made / "config.json").get("version") if not missing else None
    if missing or version != bundle["tensorrt_llm"]:
        what = f"left no {', '.join(missing)}" if missing else f"made an engine of version {version}"
        raise Refused(f"trtllm-build {what}.", hint="Its output is above; the same start tries again.", code=FAILED)


def seal(made: Path, log: Path) -> None:
    """Flush the engine to disk and write its record, last."""
    shutil.copyfile(log, made / LOG)
    records = []
    for path in sorted(path for path in made.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        name = str(path.relative_to(made))
        records.append({"path": name, "size_bytes": path.stat().st_size, "sha256": sha256(path)})
    with (made / RECORD).open("w", encoding="utf-8") as stream:
        json.dump({"schema_version": 1, "files": records}, stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())


def put_in_place(made: Path, folder: Path) -> None:
    if folder.exists():  # it has no record: something else was put there
        shutil.rmtree(folder)
    try:
        made.rename(folder)
    except OSError as error:
        # Where the file system's locks mean nothing, two may have compiled: the first one's engine is as good.
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise


def link(engine: Path, name: Path) -> None:
    """Point the repository's fixed path to this GPU's engine."""
    with disk_errors_named(name.parent):
        name.parent.mkdir(parents=True, exist_ok=True)
        temporary = name.with_name(f".{name.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(engine.absolute())
        temporary.replace(name)
