"""Find out what a folder holds, and whether it is a checkpoint of the model that it is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit import models
from toolkit.checkpoint.hf_reader import UnifiedCheckpoint
from toolkit.checkpoint.shards import Shards
from toolkit.checkpoint.source import SourceModel
from toolkit.checkpoint.tensor_file import AGAIN
from toolkit.checkpoint.trtllm_reader import TrtllmCheckpoint
from toolkit.errors import UsageError
from toolkit.files import json_object
from toolkit.models import family_of
from toolkit.specs import ModelSource, ModelSpec

#: config.json of a TensorRT-LLM checkpoint → the field of ModelSpec that it must equal.
SHAPE_FIELDS = {
    "architecture": "architecture",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_size": "head_dim",
}
#: The folder of a build that holds its checkpoint.
CHECKPOINT = "checkpoint"


def open_original(source: ModelSource, spec: ModelSpec, *, device: str) -> SourceModel:
    """Return the float model."""
    return SourceModel(Shards(Path(source.path)), family_of(spec.architecture).tensors, spec, device=device)


def open_checkpoint(folder: Path, spec: ModelSpec, *, device: str) -> TrtllmCheckpoint | UnifiedCheckpoint:
    """Return a checkpoint of either layout, or that of a build; raises UsageError for anything else."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint="CHECKPOINT is a folder that `trtk quantize` made.")
    inner = folder / CHECKPOINT
    if not (folder / "config.json").is_file() and (inner / "config.json").is_file():
        folder = inner
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"{folder} holds no config.json, so it is no checkpoint.",
            hint="CHECKPOINT is a folder of `trtk quantize` or `trtk build`.",
        )
    config = json_object(folder / "config.json", hint=AGAIN)
    if "pretrained_config" in config:
        raise UsageError(
            f"{folder} holds a compiled TensorRT engine, whose weights cannot be read back.",
            hint="Give the checkpoint that it was built from.",
        )
    if config.get("architectures"):
        _check_unified(folder, spec)
        return UnifiedCheckpoint(folder, family_of(spec.architecture).tensors, spec, device=device)
    _check_trtllm(folder, config, spec)
    return TrtllmCheckpoint(folder, family_of(spec.architecture).tensors, spec, device=device)


def _check_unified(folder: Path, spec: ModelSpec) -> None:
    found = models.read(ModelSource(name=str(folder), path=str(folder), revision="local"))
    for field in (*SHAPE_FIELDS.values(), "intermediate_size"):
        if getattr(found, field) != getattr(spec, field):
            raise _other_model(folder, field, getattr(found, field), getattr(spec, field))
    if found.vocab_size < spec.vocab_size:
        raise _other_model(folder, "vocab_size", found.vocab_size, spec.vocab_size)


def _check_trtllm(folder: Path, config: dict[str, Any], spec: ModelSpec) -> None:
    if "architecture" not in config:
        raise UsageError(
            f"{folder / 'config.json'} names no architecture, so it is no checkpoint.",
            hint="CHECKPOINT is a folder of `trtk quantize` or `trtk build`.",
        )
    for name, field in SHAPE_FIELDS.items():
        found, expected = config.get(name), getattr(spec, field)
        if found is not None and found != expected:
            raise _other_model(folder, name, found, expected)
    if config.get("vocab_size", spec.vocab_size) < spec.vocab_size:  # ModelOpt pads AWQ's to a multiple of 64
        raise _other_model(folder, "vocab_size", config["vocab_size"], spec.vocab_size)


def _other_model(folder: Path, name: str, found: Any, expected: Any) -> UsageError:
    return UsageError(
        f"{folder} is of another model: its {name} is {found}, MODEL's is {expected}.",
        hint="Give --model the model that the checkpoint was made from.",
    )
