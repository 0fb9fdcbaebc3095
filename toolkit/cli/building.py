"""The main job's middle: checkpoint, engine, repository, manifest, in one folder that appears whole."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit import convert, engine, repository
from toolkit.cli import repositories
from toolkit.cli.auto_options import measure_of
from toolkit.cli.first_start import commands_by_sm
from toolkit.cli.quality import Bounds, as_document, bounds_left, judge, need_gates
from toolkit.cli.replacing import need_replaceable
from toolkit.cli.reusing import Reuse
from toolkit.convert.conversion import SLOW_TOKENIZER_FILES, TOKENIZER_FILES
from toolkit.engine import BuildJob, bundle
from toolkit.files import FolderLock, replace_folder, sha256_text, write_json
from toolkit.models import adapters
from toolkit.plan import tensors
from toolkit.specs import BuildPlan, EngineManifest, ModelSource, Progress, to_json


def run(
    plan: BuildPlan,
    source: ModelSource,
    folder: Path,
    progress: Progress,
    *,
    bounds: Bounds | None = None,
    job: BuildJob | None = None,
) -> tuple[EngineManifest, bool]:
    """Build into FOLDER.partial and rename; a folder that is already this build is left alone.

    Raises GateError when the checkpoint misses BOUNDS, before anything is compiled; the checkpoint is kept.
    """
    need_replaceable(folder, source)
    repositories.files_of(plan, None)  # what was set cannot be: said before any work
    bounds = bounds_left(plan.conversion, bounds or Bounds())
    reuse = Reuse(plan, source, image=job.image if job else "", progress=progress)
    with FolderLock(folder):
        manifest = engine.manifest_of(folder)
        if manifest and manifest.build_id == reuse.build_id and engine.is_current(folder, plan, source):
            if is_written_as_now(plan, folder, manifest):
                _evaluated(plan, source, folder, bounds, progress)
                return manifest, False
            reuse.take_from(folder, compilers_of(manifest))
        work = folder.with_name(folder.name + ".partial")
        made = _steps(plan, source, work, bounds=bounds, progress=progress, job=job, reuse=reuse)
        manifest = engine.seal(plan, source, work, made=made, progress=progress)
        replace_folder(work, folder)
        return manifest, True


def _steps(
    plan: BuildPlan,
    source: ModelSource,
    work: Path,
    *,
    bounds: Bounds,
    progress: Progress,
    job: BuildJob | None,
    reuse: Reuse,
) -> engine.Made:
    """Carry the steps out in WORK, and return what they say about themselves."""
    job = dataclasses.replace(job, folder=work) if job else None
    converted = plan.conversion
    needed = sum(tensors.checkpoint_bytes(converted))
    checkpoint = work / engine.CHECKPOINT

    def quantize() -> None:
        measure = measure_of(converted, source, progress)
        convert.run(converted, source, checkpoint, weights_bytes=2 * needed, progress=progress, measure=measure)

    def take_or_quantize() -> None:
        shutil.rmtree(checkpoint / adapters.FOLDER, ignore_errors=True)  # of an interrupted build with others
        reuse.checkpoint(checkpoint, quantize)
        shutil.rmtree(checkpoint / adapters.FOLDER, ignore_errors=True)
        keep_only(checkpoint)

    evaluation: dict[str, Any] = {}
    versions: dict[str, str] = {}
    steps: dict[str, Callable[[], object]] = {
        "quantize": take_or_quantize,
        "evaluate": lambda: evaluation.update(_evaluated(plan, source, work, bounds, progress)),
        "tokenizer": lambda: _put_tokenizer(plan, work),
        "adapters": lambda: adapters.copy(plan.adapters, checkpoint / adapters.FOLDER),
        "compile": lambda: versions.update(
            reuse.engine(work / engine.ENGINE, lambda: engine.compile_plan(plan, work, job=job, progress=progress))
        ),
        "repository": lambda: repository.write(
            repositories.files_of(plan, work / engine.REPOSITORY, tokenizer=work / engine.TOKENIZER),
            work / engine.REPOSITORY,
        ),
        "first start": lambda: None if plan.gpu.is_cpu else bundle.write_entry(plan, work, commands_by_sm(plan)),
        "plan": lambda: write_json(work / "plan.json", to_json(plan)),
    }
    durations = {}
    for name, step in steps.items():
        started = time.monotonic()
        step()
        durations[name] = time.monotonic() - started
    if not bounds:
        del durations["evaluate"]
    # It speaks of times of files; from here on nobody goes on with this conversion.
    (checkpoint / convert.STATE_FILE).unlink(missing_ok=True)
    return engine.Made(
        durations_s=durations,
        tool_versions=versions,
        evaluation=evaluation or None,
        build_id=reuse.build_id,
        reused=tuple(reuse.taken),
    )


def is_written_as_now(plan: BuildPlan, folder: Path, manifest: EngineManifest) -> bool:
    """Whether a built folder would be served by the same files if it were built now: they come with trtk."""
    place = folder / engine.REPOSITORY
    texts = repositories.files_of(plan, place, tokenizer=folder / engine.TOKENIZER)
    now = {f"{engine.REPOSITORY}/{path}": text for path, text in texts.items()}
    now |= {} if plan.gpu.is_cpu else bundle.entry(plan, commands_by_sm(plan))
    written = (f"{engine.REPOSITORY}/", bundle.ENTRY, f"{bundle.PARTS}/", bundle.DOCUMENT)
    was = {record.path: record.sha256 for record in manifest.files if record.path.startswith(written)}
    was.pop(f"{engine.REPOSITORY}/{repository.RECORD}", None)
    return was == {path: sha256_text(text) for path, text in now.items()}


def compilers_of(manifest: EngineManifest) -> dict[str, str]:
    """Return the versions of what compiled an engine, from its manifest."""
    own = {"trtk", "python"}
    return {name: version for name, version in manifest.tool_versions.items() if name not in own}


def _evaluated(
    plan: BuildPlan, source: ModelSource, folder: Path, bounds: Bounds, progress: Progress
) -> dict[str, Any]:
    """Return what the gates ask for, nothing where there are none; raises GateError when one is missed."""
    if not bounds:
        return {}
    checkpoint = folder / engine.CHECKPOINT
    found, gates = judge(checkpoint, source, bounds, device=plan.conversion.device, progress=progress)
    need_gates(gates, checkpoint)
    return as_document(found, gates)


def keep_only(kept: Path) -> None:
    """Remove everything beside KEPT: what an interrupted build of another plan left would be sealed into this one."""
    for path in kept.parent.iterdir():
        if path == kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _put_tokenizer(plan: BuildPlan, work: Path) -> None:
    """Copy the tokenizer out of the checkpoint; a unified one is a model folder, and has it among its own files."""
    checkpoint, target = work / engine.CHECKPOINT, work / engine.TOKENIZER
    if plan.conversion.layout == "trtllm":
        shutil.copytree(checkpoint / "tokenizer", target, dirs_exist_ok=True)
        return
    target.mkdir(exist_ok=True)
    for name in (*TOKENIZER_FILES, *SLOW_TOKENIZER_FILES):
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, target / name)
