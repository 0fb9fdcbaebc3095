"""One attempt to compile: a scratch folder that becomes FOLDER/engine/KEY whole, or is gone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.engine import watcher
from toolkit.engine.builder import BuildJob, gpus_of, ranks
from toolkit.engine.keys import engine_key
from toolkit.engine.toolchain import CHECKPOINT, ENGINE
from toolkit.errors import BuildError
from toolkit.files import disk_errors_named, replace_folder, written_whole
from toolkit.specs import BuildPlan, Progress

STEP = "Compile with trtllm-build"
TIMING_CACHE = "model.cache"
#: Who writes in the container when root runs trtk: the user `triton-server` of NVIDIA's images.
IMAGE_USER = (1000, 1000)
#: What the compiler says on its way, and how far a rank is then. Where the time goes differs from model to model.
PHASES = (
    ("Total time of constructing network", 0.1),
    ("Build TensorRT engine", 0.2),
    ("Engine generation completed", 0.8),
    ("Serializing engine to", 0.9),
)
RANK_DONE = "Engine serialized."


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Where one compiler reads and writes."""

    job_id: str
    checkpoint: Path
    output: Path  # the engine, until it is whole
    timing_cache: Path  # a copy of our own: two builds at once do not meet in it
    log: Path
    user: tuple[int, int]  # uid and gid that the compiler runs as


@contextlib.contextmanager
def opened(plan: BuildPlan, job: BuildJob, *, kind: str) -> Iterator[Attempt]:
    """Yield an attempt; its engine is put in place when the block ends well, and nothing of it stays otherwise.

    KIND says what a watcher ends when this process is killed: a `container` or `processes`.
    """
    key = engine_key(plan.gpu.sm, plan.release)
    job_id = f"{key}-{uuid.uuid4().hex[:8]}"
    engines = job.folder / ENGINE
    scratch = engines / f".{job_id}.partial"
    made = Attempt(
        job_id=job_id,
        checkpoint=(job.folder / CHECKPOINT).absolute(),
        output=(scratch / "engine").absolute(),
        timing_cache=(scratch / "timing" / TIMING_CACHE).absolute(),
        log=engines / f"{key}.log",
        user=_user(),
    )
    kept_timing = job.timing_caches / _timing_name(plan, job) / TIMING_CACHE
    with watcher.watching(kind, job_id, scratch.absolute()), disk_errors_named(scratch):
        try:
            _prepare(made, kept_timing)
            yield made
            _need_whole(plan, made.output)
            _give(scratch, (os.geteuid(), os.getegid()))
            replace_folder(made.output, engines / key)
            _keep_timing(made.timing_cache, kept_timing)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def logged(made: Attempt, plan: BuildPlan, progress: Progress) -> Iterator[Listener]:
    """Yield what hears the compiler's lines: they go to the log, and move the progress."""
    with made.log.open("w", encoding="utf-8", buffering=1) as stream:
        listener = Listener(stream.write, progress, ranks(plan))
        listener.report()
        yield listener


class Listener:
    """Hears lines of the compiler."""

    def __init__(self, write: Callable[[str], object], progress: Progress, count: int) -> None:
        self._write, self._progress, self._count = write, progress, count
        self._done, self._part = 0, 0.0

    def __call__(self, line: str) -> None:
        """Keep a line, and see how far the compiler is."""
        self._write(f"{line}\n")
        self._part = next((part for words, part in PHASES if words in line), self._part)
        if RANK_DONE in line:
            self._done, self._part = self._done + 1, 0.0
        self.report()

    def report(self) -> None:
        """Say how far the compiler is."""
        self._progress(STEP, min(self._done + self._part, self._count), self._count)


def _user() -> tuple[int, int]:
    return (os.geteuid(), os.getegid()) if os.geteuid() else IMAGE_USER


def _timing_name(plan: BuildPlan, job: BuildJob) -> str:
    # By the card that the kernels are timed on, which may be another one of the plan's SM.
    gpus = gpus_of(plan, job.host)
    card = (gpus[0].name or gpus[0].title.lower().replace(" ", "-")) if gpus else plan.gpu.name
    return f"{card}-{engine_key(plan.gpu.sm, plan.release)}"


def _prepare(made: Attempt, kept_timing: Path) -> None:
    made.output.mkdir(parents=True)
    made.timing_cache.parent.mkdir()
    if kept_timing.is_file():
        shutil.copyfile(kept_timing, made.timing_cache)
    _give(made.output.parent, made.user)


def _give(folder: Path, owner: tuple[int, int]) -> None:
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, *owner, follow_symlinks=False)


def _keep_timing(made: Path, kept: Path) -> None:
    if made.is_file():
        with written_whole(kept) as temporary:
            shutil.copyfile(made, temporary)


def _need_whole(plan: BuildPlan, engine: Path) -> None:
    """Raise BuildError unless every rank's engine is there and the release that was asked for compiled it."""
    names = ["config.json", *(f"rank{rank}.engine" for rank in range(ranks(plan)))]
    missing = [name for name in names if not (engine / name).is_file() or not (engine / name).stat().st_size]
    if missing:
        raise BuildError(
            f"trtllm-build ended without an error, and {', '.join(missing)} is not there or empty.",
            hint="Please report it with the log.",
        )
    found = json.loads((engine / "config.json").read_text(encoding="utf-8")).get("version")
    if found != plan.release.tensorrt_llm:
        raise BuildError(
            f"TensorRT-LLM {found} compiled the engine; the plan is for {plan.release.tensorrt_llm} "
            f"(release {plan.release.name}), which could not run it.",
            hint="Build with the --release that the image is of, or leave --image out.",
        )
