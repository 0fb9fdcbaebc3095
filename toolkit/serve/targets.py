"""What ENGINE on the command line means: a folder that `trtk build` made, or a model repository as it is."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from toolkit import specs
from toolkit.errors import MissingError, UsageError
from toolkit.serve.starting import models_in
from toolkit.specs import EngineManifest, Progress, no_progress
from toolkit.verifying import need_as_built

MANIFEST = "manifest.json"
ENGINES = Path("engines")
#: The model a client talks to, in repositories that have one.
FRONT_MODELS = ("ensemble", "tensorrt_llm_bls")
#: What a server reads of a built folder.
REPOSITORY = "model_repository"
SERVED = ("engine/", "tokenizer/", f"{REPOSITORY}/")
#: What the embedded CPU server can run; the other kinds need an NVIDIA GPU.
CPU_KINDS = ("openvino",)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What will be served."""

    name: str
    repository: Path
    probe_model: str  # empty: nothing in it takes text and makes tokens
    was_chosen: bool = False  # True: the newest engine, because none was named


def find(engine: Path | None, *, is_verified: bool = True, progress: Progress = no_progress) -> Target:
    """Return what to serve; without a name, the newest engine. A built one must be what its manifest says."""
    folder = engine if engine is not None else _newest()
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint="`trtk build` makes one; `ls engines` lists them.")
    manifest = folder / MANIFEST
    target = _built(folder, _manifest(manifest)) if manifest.is_file() else _bare(folder)
    if manifest.is_file() and is_verified:
        served = [record for record in _manifest(manifest).files if record.path.startswith(SERVED)]
        need_as_built(folder, served, closed=REPOSITORY, progress=progress)
    return dataclasses.replace(target, was_chosen=engine is None)


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


def _built(folder: Path, manifest: EngineManifest) -> Target:
    if manifest.kind == "checkpoint":
        raise UsageError(f"{folder} holds a checkpoint, which no server can run yet.", hint="`trtk build` compiles it.")
    if manifest.kind not in CPU_KINDS:
        gpu = manifest.plan.get("gpu", {}).get("title", "an NVIDIA GPU")
        release = manifest.plan.get("release", {})
        engine = "a bundle, whose engine start.py compiles on the target," if manifest.is_deferred else "an engine"
        raise MissingError(
            f"{folder} holds {engine} for {gpu}; the embedded server runs on the CPU.",
            hint=f"Serve it on a machine with {gpu}, in {release.get('image', 'its Triton container')}; "
            "here: trtk build demo --gpu cpu",
        )
    return _bare(folder / REPOSITORY, name=folder.absolute().name)


def _bare(repository: Path, *, name: str | None = None) -> Target:
    absolute = repository.absolute()
    if name is None:
        name = absolute.parent.name if absolute.name == REPOSITORY else absolute.name
    models = models_in(repository)
    probe = next((model for model in FRONT_MODELS if model in models), "")
    return Target(name=name, repository=absolute, probe_model=probe)
