"""Checkpoints that are quantized already: which method made one, and how its linears are read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from toolkit.errors import PlanInfeasible
from toolkit.files import json_object
from toolkit.models import REFETCH
from toolkit.registry import by_name, entries_in

if TYPE_CHECKING:
    from toolkit.checkpoint.shards import Shards
    from toolkit.weights import Linear

#: Files in which older tools wrote what is now config.json's quantization_config → the method they stand for.
CONFIG_FILES = {"hf_quant_config.json": "modelopt", "quantize_config.json": "gptq", "quant_config.json": "awq"}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """As what a stored linear can be kept without a change to its numbers; read without reading the weight."""

    algo: str | None  # TensorRT-LLM's quant_algo; None: it has to be dequantized
    group_size: int | None = None
    scale_2: float | None = None  # the scale of the scales, where the format has one
    reason: str = ""  # why it has to be


class Reader(Protocol):
    """Reads the linears of one checkpoint."""

    title: str  # AutoAWQ, 4 bits in groups of 128

    def kind(self, shards: Shards, module: str) -> Kind | None:
        """Return what a module is stored as, None where it is a float linear."""

    def read(self, shards: Shards, module: str) -> Linear:
        """Return a module's weight and scales, unpacked; as float32 where the kind has no algo."""


@dataclass(frozen=True, kw_only=True)
class SourceMethod:
    """One module of checkpoint/sources; `open` raises PlanInfeasible for a variant that cannot be read."""

    name: str  # quant_method in config.json
    aliases: tuple[str, ...] = ()
    open: Callable[[Mapping[str, Any]], Reader]


@functools.cache
def catalogue() -> tuple[SourceMethod, ...]:
    """Return every method that trtk reads."""
    return tuple(entries_in("toolkit.checkpoint.sources", "SOURCE", SourceMethod))


def reader_of(folder: Path) -> Reader | None:
    """Return the reader of a quantized checkpoint, None for one in float; raises PlanInfeasible for other methods."""
    config = quantization_config(folder)
    if config is None:
        return None
    method = str(config.get("quant_method") or "unnamed").lower()
    table = by_name(catalogue(), lambda entry: (entry.name, *entry.aliases))
    if method not in table:
        raise PlanInfeasible(
            f"{folder} is quantized by the method {method!r}, which trtk does not read; "
            f"it reads {', '.join(sorted(table))}.",
            hint="Give the model's original 16-bit weights.",
        )
    try:
        return table[method].open(config)
    except (TypeError, ValueError, AttributeError) as error:
        raise PlanInfeasible(
            f"{folder}'s quantization_config has a value of another kind than its field takes: {error}.", hint=REFETCH
        ) from error


def quantization_config(folder: Path) -> dict[str, Any] | None:
    """Return what says how a checkpoint is quantized, with its quant_method; None when nothing does."""
    config = json_object(folder / "config.json", hint=REFETCH)
    inline = config.get("quantization_config") or config.get("compression_config")
    inline = inline or (config.get("text_config") or {}).get("quantization_config")
    if isinstance(inline, Mapping) and inline:
        return dict(inline)
    if inline:
        raise PlanInfeasible(f"{folder}'s quantization_config is {inline!r}, not an object.", hint=REFETCH)
    for name, method in CONFIG_FILES.items():
        if (folder / name).is_file():
            return {"quant_method": method, **json_object(folder / name, hint=REFETCH)}
    return None
