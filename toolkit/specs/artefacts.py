"""What was made, and what serves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.specs.json_values import from_json

#: Of manifest.json; a reader refuses another.
MANIFEST_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file of an artefact: its path below the artefact's folder, size and hash."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class EngineManifest:
    """What a build made, written last: if it is there, the artefact is whole."""

    schema_version: int
    kind: str  # checkpoint, trtllm, llmapi, openvino
    name: str
    plan: Mapping[str, Any]
    model: Mapping[str, Any]  # name, revision, sha256 of every source shard
    files: tuple[FileRecord, ...]
    durations_s: Mapping[str, float]
    tool_versions: Mapping[str, str]
    is_deferred: bool = False  # True: the engine is compiled on the target, at first start
    evaluation: Mapping[str, Any] | None = None  # of the checkpoint, where a quality gate asked for it
    build_id: str = ""  # hash of the plan, of every source file and of the code: the same id, the same bytes
    reused: tuple[str, ...] = ()  # what was taken from the cache: checkpoint, engine


def manifest_from_json(document: Any) -> EngineManifest:
    """Return the manifest that a JSON document is; raises ValueError with what is wrong for one that is none."""
    fields = document if isinstance(document, Mapping) else {}
    version, files = fields.get("schema_version"), fields.get("files")
    if version != MANIFEST_SCHEMA:
        raise ValueError(f"its schema_version is {version!r}, not {MANIFEST_SCHEMA}")
    objects = ("plan", "model", "durations_s", "tool_versions")
    faults = [name for name in objects if not isinstance(fields.get(name), Mapping)]
    if not (isinstance(files, list) and all(isinstance(record, Mapping) for record in files)):
        faults.append("files")
    if faults:
        raise ValueError(f"its {', '.join(faults)} are not what a manifest has there")
    try:
        return from_json(EngineManifest, fields)
    except TypeError as error:
        raise ValueError(str(error)) from error
