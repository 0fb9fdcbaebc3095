"""Hugging Face shards → TensorRT-LLM checkpoint, one decoder layer in memory at a time.

The work folder is DIR.partial: rank0.safetensors grows there under a journal, so that an interrupted conversion goes on
at the layer where it stopped; the finished folder appears as DIR by rename. A lock beside it keeps two conversions of
the same folder apart: the second one waits, and finds the work done.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from toolkit.convert.conversion import STATE_FILE, Conversion
from toolkit.convert.kept import outlook_of, survey_of
from toolkit.convert.search import REPORT, Measure
from toolkit.errors import UsageError
from toolkit.files import (
    FolderLock,
    canonical_json,
    need_free_bytes,
    need_new_folder,
    replace_folder,
    sha256_text,
    write_json,
)
from toolkit.forward.device import need_device
from toolkit.specs import ConversionPlan, ModelSource, Progress, no_progress, to_json

__all__ = [
    "REPORT",
    "STATE_FILE",
    "need_device",
    "need_replaceable",
    "outlook_of",
    "run",
    "source_fingerprint",
    "survey_of",
]

#: Bump when the same plan would give other bytes.
FORMAT_VERSION = 1


def run(
    plan: ConversionPlan,
    source: ModelSource,
    folder: Path,
    *,
    weights_bytes: int = 0,
    progress: Progress = no_progress,
    measure: Measure | None = None,
) -> bool:
    """Write the checkpoint of a plan into FOLDER; return False when it was already there, whole and the same.

    MEASURE returns the KL divergence of a checkpoint: a search for a bound on it aims again where it missed. Raises
    BuildError for bad weights, MissingError for a full disk, GateError for a bound out of reach; all leave FOLDER as it
    was.
    """
    need_device(plan.device)
    state = canonical_json({"format": FORMAT_VERSION, "plan": to_json(plan), "source": source_fingerprint(source)})
    with FolderLock(folder):
        if _is_same(folder, state):
            return False
        work = folder.with_name(folder.name + ".partial")
        if not _is_same(work, state):
            shutil.rmtree(work, ignore_errors=True)
            need_free_bytes(work, weights_bytes, what=f"The {plan.recipe.name} checkpoint")
            work.mkdir(parents=True)
            write_json(work / STATE_FILE, {"key": sha256_text(state)})
        Conversion(plan, source, work).write(progress, measure)
        replace_folder(work, folder)
    return True


def need_replaceable(folder: Path, source: ModelSource) -> None:
    """Raise UsageError where a checkpoint in FOLDER would take the place of something that trtk did not make."""
    need_new_folder(folder, Path(source.path), example="checkpoints/NAME")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STATE_FILE).is_file():
        raise UsageError(
            f"{folder} is there already and is no checkpoint of `trtk quantize`, so it is left alone.",
            hint="Give a new folder with -o, or remove that one.",
        )


def source_fingerprint(source: ModelSource) -> dict[str, object]:
    """Return what tells one set of source files from another without reading the weights: names, sizes, times."""
    kinds = {".json", ".safetensors"}
    files = sorted(path for path in Path(source.path).iterdir() if path.suffix in kinds and path.is_file())
    stats = {path.name: path.stat() for path in files}
    return {
        "revision": source.revision,
        "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()},
    }


def _is_same(folder: Path, state: str) -> bool:
    path = folder / STATE_FILE
    return path.is_file() and path.read_text(encoding="utf-8") == canonical_json({"key": sha256_text(state)})
