"""Checkpoint → engine, and the manifest that says what was made."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import __version__
from toolkit.engine.builder import BuildJob, builder
from toolkit.engine.toolchain import CHECKPOINT, ENGINE, REPOSITORY, TOKENIZER, Toolchain
from toolkit.files import write_json
from toolkit.hashes import sha256_of
from toolkit.registry import by_name, entries_in, pick
from toolkit.specs import (
    MANIFEST_SCHEMA,
    BuildPlan,
    EngineManifest,
    FileRecord,
    ModelSource,
    Progress,
    manifest_from_json,
    no_progress,
    to_json,
)

__all__ = [
    "CHECKPOINT",
    "ENGINE",
    "MANIFEST",
    "REPOSITORY",
    "TOKENIZER",
    "BuildJob",
    "Made",
    "compile_plan",
    "is_current",
    "manifest_of",
    "seal",
    "toolchain",
]

MANIFEST = "manifest.json"
SHARD_FIELDS = {"name", "size_bytes", "mtime_ns", "sha256"}


def toolchain(name: str) -> Toolchain:
    """Return a toolchain by name."""
    table = by_name(entries_in("toolkit.engine.toolchains", "TOOLCHAIN", Toolchain), lambda entry: (entry.name,))
    return pick(table, name, kind="toolchain")


def compile_plan(
    plan: BuildPlan, folder: Path, *, job: BuildJob | None = None, progress: Progress = no_progress
) -> Mapping[str, str]:
    """Compile FOLDER/checkpoint as the plan says; return the versions of what compiled.

    A toolchain that needs a builder leaves what can be compiled anywhere; JOB is for the plan's builder.
    """
    used = toolchain(plan.toolchain)
    used.compile(plan, folder, progress)
    if not used.needs_builder or job is None:
        return used.versions()
    return {**used.versions(), **builder(plan.builder).build(plan, job, progress)}


@dataclass(frozen=True, kw_only=True)
class Made:
    """What the steps of a build say about themselves."""

    durations_s: Mapping[str, float]
    tool_versions: Mapping[str, str]
    evaluation: Mapping[str, Any] | None = None
    build_id: str = ""
    reused: tuple[str, ...] = ()


def seal(
    plan: BuildPlan,
    source: ModelSource,
    folder: Path,
    *,
    made: Made,
    progress: Progress = no_progress,
) -> EngineManifest:
    """Hash everything in FOLDER and write manifest.json, last: with it the artefact is whole."""
    used = toolchain(plan.toolchain)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
    records = []
    for done, path in enumerate(files):
        progress("Hash the files", done, len(files))
        name = str(path.relative_to(folder))
        records.append(FileRecord(path=name, size_bytes=path.stat().st_size, sha256=sha256_of(path)))
    progress("Hash the files", len(files), len(files))
    manifest = EngineManifest(
        schema_version=MANIFEST_SCHEMA,
        kind=used.kind,
        name=folder.name.removesuffix(".partial"),
        plan=to_json(plan),
        model={**to_json(source), "shards": source_shards(source)},
        files=tuple(records),
        durations_s={step: round(seconds, 3) for step, seconds in made.durations_s.items()},
        tool_versions={"trtk": __version__, "python": platform.python_version(), **made.tool_versions},
        is_deferred=used.needs_builder and builder(plan.builder).is_deferred,
        evaluation=made.evaluation,
        build_id=made.build_id,
        reused=made.reused,
    )
    write_json(folder / MANIFEST, to_json(manifest))
    return manifest


def manifest_of(folder: Path) -> EngineManifest | None:
    """Return the manifest of a finished build; None where there is none, or a damaged or foreign one."""
    try:
        return manifest_from_json(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def source_shards(source: ModelSource, *, known: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Return name, size, time and sha256 of every weight file; a file that KNOWN has unchanged is not read again."""
    trusted = {(shard["name"], shard["size_bytes"], shard["mtime_ns"]): shard for shard in known or ()}
    shards = []
    for path in sorted(Path(source.path).glob("*.safetensors")):
        stat = path.stat()
        key = (path.name, stat.st_size, stat.st_mtime_ns)
        made = {"name": path.name, "size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        shards.append(trusted.get(key) or {**made, "sha256": sha256_of(path)})
    return shards


def is_current(folder: Path, plan: BuildPlan, source: ModelSource) -> bool:
    """Return whether FOLDER already holds exactly this plan of exactly these weights, made by this version."""
    manifest = manifest_of(folder)
    if manifest is None or manifest.plan.get("plan_id") != plan.plan_id:
        return False
    if manifest.tool_versions.get("trtk") != __version__ or manifest.model.get("revision") != source.revision:
        return False
    known = manifest.model.get("shards")
    if not isinstance(known, list) or not all(
        isinstance(shard, dict) and set(shard) >= SHARD_FIELDS for shard in known
    ):
        return False
    now = source_shards(source, known=known)
    if {shard["sha256"] for shard in now} != {shard["sha256"] for shard in known}:
        return False
    return all((folder / record.path).is_file() for record in manifest.files)
