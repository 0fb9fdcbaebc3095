"""LoRA adapters in Hugging Face's format: what an engine must know of them, and their files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from toolkit.errors import UsageError
from toolkit.files import json_object, sha256_file
from toolkit.specs import Adapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: Of a checkpoint, where its adapters lie.
FOLDER = "lora"


def read_all(folders: Iterable[Path]) -> tuple[Adapter, ...]:
    """Return the adapters of several folders; raises UsageError when two have one name."""
    found = tuple(read(Path(folder)) for folder in folders)
    names = [adapter.name for adapter in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"Two adapters are called {twice[0]}.", hint="Give each --lora-dir a folder name of its own.")
    return found


def read(folder: Path) -> Adapter:
    """Return the adapter in FOLDER; raises UsageError for what is no plain LoRA in safetensors."""
    hint = "PEFT's save_pretrained makes one."
    if not (folder / CONFIG).is_file():
        raise UsageError(f"{folder} is no adapter: it has no {CONFIG}.", hint=hint)
    config = json_object(folder / CONFIG, hint=hint)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise UsageError(
            f"{folder} has no {WEIGHTS}.", hint="Save the adapter as safetensors; pickled weights can run code."
        )
    kind, rank, modules = config.get("peft_type"), config.get("r"), config.get("target_modules")
    if kind != "LORA" or config.get("use_dora"):
        raise UsageError(f"{folder / CONFIG} describes {'DoRA' if config.get('use_dora') else kind}, not LoRA.")
    if not isinstance(rank, int) or rank < 1 or not isinstance(modules, list) or not modules:
        raise UsageError(
            f"{folder / CONFIG} needs a rank `r` and a list of `target_modules`; it has {rank}, {modules}."
        )
    return Adapter(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name),
        path=str(folder.resolve()),
        sha256=sha256_file(weights),
        rank=rank,
        modules=tuple(sorted(str(module) for module in modules)),
    )


def copy(adapters: Iterable[Adapter], folder: Path) -> None:
    """Put each adapter's two files into FOLDER/NAME, where the engine's command looks for them."""
    for adapter in adapters:
        target = folder / adapter.name
        target.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(Path(adapter.path) / name, target / name)
        if sha256_file(target / WEIGHTS) != adapter.sha256:
            raise UsageError(f"{adapter.path} changed since the plan was made.", hint="Build again.")
