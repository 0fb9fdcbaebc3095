"""What ENGINE on the command line means: a folder that `trtk build` made, or a model repository as it is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import specs
from toolkit.errors import UsageError
from toolkit.serve.starting import models_in
from toolkit.specs import EngineManifest, Progress, no_progress
from toolkit.verifying import need_as_built

MANIFEST = "manifest.json"
ENGINES = Path("engines")
#: The model a client talks to, in repositories that have one.
FRONT_MODELS = ("ensemble", "tensorrt_llm_bls")
REPOSITORY = "model_repository"
#: What `trtk repo` writes beside the models.
RECORD = ".trtk-repository.json"
#: What a server reads of a built folder; a bundle's start.py looks at its weights itself, where it reads them.
SERVED = ("engine/", "tokenizer/", f"{REPOSITORY}/")
SERVED_BY_ENTRY = ("bundle.json", "start.py", "first_start/", "tokenizer/", f"{REPOSITORY}/")
#: What the CPU can run; the other kinds need an NVIDIA GPU and its container.
CPU_KINDS = ("openvino",)


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """What `trtk build` made, as far as a server has to know."""

    folder: Path
    kind: str
    gpu: str  # NVIDIA RTX A4500
    gpu_name: str  # a4500
    sm: int
    image: str  # of the release
    world_size: int
    loaded_bytes: int  # that a start reads
    build_id: str = ""
    is_deferred: bool = False  # the engine is compiled at the first start

    @property
    def is_for_cpu(self) -> bool:
        """Whether it runs without an NVIDIA GPU."""
        return self.kind in CPU_KINDS


@dataclass(frozen=True, kw_only=True)
class Target:
    """What will be served."""

    name: str
    repository: Path
    probe_model: str  # empty: nothing in it takes text and makes tokens
    was_chosen: bool = False  # True: the newest engine, because none was named
    artefact: Artefact | None = None
    pool: Mapping[str, Any] | None = None  # toolkit.pool's own settings, where several models share the server


def find(engine: Path | None, *, is_verified: bool = True, progress: Progress = no_progress) -> Target:
    """Return what to serve; without a name, the newest engine. A built one must be what its manifest says."""
    folder = engine if engine is not None else _newest()
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint="`trtk build` makes one; `ls engines` lists them.")
    if not is_built(folder):
        return _repository(folder, is_verified=is_verified, progress=progress)
    found = artefact(folder)
    if is_verified:
        _verify(found, progress)
    target = _bare(folder / REPOSITORY, name=folder.absolute().name)
    return dataclasses.replace(target, was_chosen=engine is None, artefact=found)


def _repository(folder: Path, *, is_verified: bool, progress: Progress) -> Target:
    """Return a repository by itself, with the engine that it is for where `trtk repo` says which."""
    target, built = _bare(folder), engine_of(folder)
    if built is None:
        return target
    found = artefact(built, repository=folder)
    if is_verified:
        _verify(found, progress)
    return dataclasses.replace(target, artefact=found)


def _verify(found: Artefact, progress: Progress) -> None:
    below = SERVED if found.is_for_cpu else SERVED_BY_ENTRY
    manifest = _manifest(found.folder / MANIFEST)
    served = [record for record in manifest.files if record.path.startswith(below)]
    need_as_built(found.folder, served, closed=REPOSITORY, progress=progress)


def artefact(folder: Path, *, repository: Path | None = None) -> Artefact:
    """Return what a folder holds that `trtk build` made; REPOSITORY may have more instances of it than its own."""
    found = _artefact(folder, _manifest(folder / MANIFEST))
    ranks = about_of(repository).get("gpus") if repository else None
    return dataclasses.replace(found, world_size=ranks) if isinstance(ranks, int) else found


def about_of(repository: Path) -> Mapping[str, Any]:
    """Return what `trtk repo` wrote down of a repository; nothing where somebody else made it."""
    try:
        about = json.loads((repository / RECORD).read_text(encoding="utf-8")).get("about")
    except (OSError, ValueError, AttributeError):
        return {}
    return about if isinstance(about, dict) else {}


def engine_of(repository: Path) -> Path | None:
    """Return the built folder that a repository of `trtk repo` is for, where it is still there."""
    folder = about_of(repository).get("engine")
    return Path(folder) if isinstance(folder, str) and Path(folder).is_absolute() and is_built(Path(folder)) else None


def is_built(folder: Path) -> bool:
    """Whether `trtk build` finished a folder."""
    return (folder / MANIFEST).is_file()


def _newest() -> Path:
    manifests = sorted(ENGINES.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
    if not manifests:
        raise UsageError(
            "There is nothing to serve: no folder in engines/ has a manifest.json.",
            hint="Make one: trtk build demo --gpu cpu --quant int4",
        )
    return manifests[-1].parent


def _manifest(path: Path) -> EngineManifest:
    try:
        return specs.manifest_from_json(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UsageError(f"{path} is not a manifest of this version of trtk: {error}.", hint="Build again.") from error


def _artefact(folder: Path, manifest: EngineManifest) -> Artefact:
    try:
        return _planned_artefact(folder, manifest)
    except (AttributeError, TypeError) as error:
        raise UsageError(f"The plan in {folder / MANIFEST} is damaged: {error}.", hint="Build again.") from error


def _planned_artefact(folder: Path, manifest: EngineManifest) -> Artefact:
    if manifest.kind == "checkpoint":
        raise UsageError(f"{folder} holds a checkpoint, which no server can run yet.", hint="`trtk build` compiles it.")
    gpu, limits = manifest.plan.get("gpu", {}), manifest.plan.get("limits", {})
    instances = manifest.plan.get("repository", {}).get("instances", {}).get("tensorrt_llm", 1)
    weights = "checkpoint/" if manifest.kind == "llmapi" or manifest.is_deferred else "engine/"
    return Artefact(
        folder=folder.absolute(),
        kind=manifest.kind,
        gpu=gpu.get("title", "an NVIDIA GPU"),
        gpu_name=gpu.get("name", ""),
        sm=gpu.get("sm", 0),
        image=manifest.plan.get("release", {}).get("image", ""),
        world_size=limits.get("tp", 1) * limits.get("pp", 1) * instances,
        loaded_bytes=sum(record.size_bytes for record in manifest.files if record.path.startswith(weights)),
        build_id=manifest.build_id,
        is_deferred=manifest.is_deferred,
    )


def _bare(repository: Path, *, name: str | None = None) -> Target:
    absolute = repository.absolute()
    if name is None:
        name = absolute.parent.name if absolute.name == REPOSITORY else absolute.name
    models = models_in(repository)
    probe = next((model for model in FRONT_MODELS if model in models), "")
    return Target(name=name, repository=absolute, probe_model=probe)
