"""Model families: config.json → ModelSpec, Hugging Face names ↔ checkpoint names, and where a model's files are."""

from __future__ import annotations

import functools
from pathlib import Path

from toolkit.errors import PlanInfeasible, UsageError
from toolkit.files import json_object
from toolkit.models.family import ModelFamily, PlannedFamily, TensorNames
from toolkit.registry import by_name, entries_in
from toolkit.specs import ModelSource, ModelSpec, Progress, no_progress

#: What to do about a damaged file of a model.
REFETCH = "Download it again."

__all__ = [
    "ModelFamily",
    "PlannedFamily",
    "TensorNames",
    "catalogue",
    "family_of",
    "locate",
    "planned",
    "read",
    "shape_of",
]


@functools.cache
def catalogue() -> tuple[ModelFamily, ...]:
    """Return every family that trtk converts."""
    return tuple(entries_in("toolkit.models.families", "FAMILY", ModelFamily))


@functools.cache
def planned() -> tuple[PlannedFamily, ...]:
    """Return every family that trtk plans, and does not convert."""
    return tuple(entries_in("toolkit.models.outlines", "FAMILY", PlannedFamily))


def shape_of(architecture: str) -> ModelFamily | PlannedFamily:
    """Return the family that knows an architecture's shape, whether trtk converts it or not."""
    table = by_name(planned(), lambda family: family.architectures)
    return table[architecture] if architecture in table else family_of(architecture)


def family_of(architecture: str) -> ModelFamily:
    """Return the family of a Hugging Face architecture name; raises PlanInfeasible for one we do not convert."""
    table = by_name(catalogue(), lambda family: family.architectures)
    if architecture not in table:
        raise PlanInfeasible(
            f"trtk does not convert {architecture} yet; it converts {', '.join(sorted(table))}.",
            hint=_other_ways(architecture),
        )
    return table[architecture]


def read(source: ModelSource) -> ModelSpec:
    """Return the ModelSpec of a located model, from its config.json and generation_config.json."""
    folder = Path(source.path)
    return read_config(folder / "config.json", generation=folder / "generation_config.json")


def _other_ways(architecture: str) -> str:
    if any(architecture in family.architectures for family in planned()):
        return "`trtk plan` knows its shape; `trtk models` lists the families."
    return "`trtk models` lists the families."


def read_config(path: Path, *, generation: Path | None = None, is_to_plan: bool = False) -> ModelSpec:
    """Return the ModelSpec that a config.json describes, wherever it lies and whatever it is called.

    IS_TO_PLAN: families that are not converted will do.
    """
    config = json_object(path, hint=REFETCH)
    architectures = config.get("architectures")
    if not architectures:
        raise PlanInfeasible(f"{path} names no architecture.", hint='Add "architectures": ["LlamaForCausalLM"].')
    if generation and generation.is_file():  # chat models stop on more tokens than config.json says
        config["eos_token_id"] = json_object(generation, hint=REFETCH).get("eos_token_id", config.get("eos_token_id"))
    family = (shape_of if is_to_plan else family_of)(architectures[0])
    try:
        return family.describe(config)
    except (TypeError, ValueError, AttributeError) as error:
        raise PlanInfeasible(
            f"{path} has a value of another kind than its field takes: {error}.", hint=REFETCH
        ) from error


def locate(name: str, *, progress: Progress = no_progress) -> ModelSource:
    """Return where MODEL's files are: `demo`, a local Hugging Face folder, or a hub id `org/name[@revision]`."""
    if name == "demo":
        from toolkit.models import demo

        return demo.fetch(progress)
    folder = Path(name)
    if folder.is_dir():
        return _local(name, folder)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UsageError(
            f"There is no folder {name!r}, and it is no hub id either.",
            hint="MODEL is `demo`, a local Hugging Face folder, or org/name[@revision].",
        )
    from toolkit.models import hub

    return hub.fetch(name, progress)


def _local(name: str, folder: Path) -> ModelSource:
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"{folder} holds no config.json, so it is no Hugging Face model folder.",
            hint="Give the folder that has config.json and *.safetensors.",
        )
    need_safetensors(name, [path.name for path in folder.iterdir()])
    return ModelSource(name=name, path=str(folder.resolve()), revision="local")


def need_safetensors(name: str, files: list[str]) -> None:
    """Refuse a model that has only pickled weights, or none."""
    if any(file.endswith(".safetensors") for file in files):
        return
    pickles = sorted(file for file in files if file.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl")))
    if pickles:
        raise PlanInfeasible(
            f"{name} has its weights only as pickle ({pickles[0]}), which can run code when it is read; "
            "trtk reads safetensors only.",
            hint="Use a revision with *.safetensors, or convert it in a sandbox with `save_pretrained`.",
        )
    raise UsageError(f"{name} holds no *.safetensors weights.", hint="Download the weights into the same folder.")
