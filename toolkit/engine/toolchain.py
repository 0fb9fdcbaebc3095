"""What compiles a checkpoint for a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolkit.specs import BuildPlan, Progress

#: Names inside a build folder, agreed with the repository's templates.
CHECKPOINT, ENGINE, TOKENIZER, REPOSITORY = "checkpoint", "engine", "tokenizer", "model_repository"


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """One module of engine/toolchains: reads FOLDER/checkpoint, leaves FOLDER/engine or what will make it."""

    name: str
    kind: str  # of the manifest
    needs_builder: bool  # True: a builder compiles the engine, here or on the target
    compile: Callable[[BuildPlan, Path, Progress], None]
    versions: Callable[[], dict[str, str]]
