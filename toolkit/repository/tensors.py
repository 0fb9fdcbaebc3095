"""The tensor tables of a layout, read from its TOML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolkit.registry import toml_document

FLAGS = {"optional", "ragged", "scalar", "own"}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One input or output of a model, as config.pbtxt says it."""

    name: str
    type: str
    dims: tuple[int, ...]
    is_optional: bool = False
    is_ragged: bool = False
    is_scalar: bool = False  # reshaped to [ ]: the model sees the batch alone
    is_own: bool = False  # only where the engine is of our making


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of an ensemble; maps read tensor of the step → tensor of the ensemble."""

    model: str
    input_map: Mapping[str, str]
    output_map: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Table:
    """The tensors of one model, and its steps where it is an ensemble."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[Step, ...] = ()


def tables(file: Path, types: Mapping[str, str], *, has_own: bool = False) -> dict[str, Table]:
    """Read every model's table; TYPES says what $logits and its like stand for; HAS_OWN keeps tensors of our own."""
    made: dict[str, Table] = {}
    for model, content in toml_document(file).items():
        made[model] = _table(content, made.get(content.get("like", "")), types)
    return made if has_own else {model: _without_own(table) for model, table in made.items()}


def _without_own(table: Table) -> Table:
    own = {tensor.name for tensor in table.outputs if tensor.is_own}
    steps = tuple(
        replace(step, output_map={key: value for key, value in step.output_map.items() if value not in own})
        for step in table.steps
    )
    return replace(table, outputs=tuple(each for each in table.outputs if not each.is_own), steps=steps)


def _table(content: Mapping[str, Any], base: Table | None, types: Mapping[str, str]) -> Table:
    own_inputs = tuple(_tensor(row, types) for row in content["inputs"])
    own_outputs = tuple(_tensor(row, types) for row in content["outputs"])
    steps = tuple(_step(step) for step in content.get("steps", ()))
    if base is None:
        return Table(inputs=own_inputs, outputs=own_outputs, steps=steps)
    scalar, not_ragged = set(content["scalar"]), set(content["not_ragged"])
    inherited = tuple(
        replace(
            tensor,
            is_scalar=tensor.is_scalar or tensor.name in scalar,
            is_ragged=tensor.is_ragged and tensor.name not in not_ragged,
        )
        for tensor in base.inputs
    )
    return Table(inputs=inherited + own_inputs, outputs=base.outputs + own_outputs, steps=steps)


def _tensor(row: str, types: Mapping[str, str]) -> Tensor:
    name, kind, dims, *flags = row.split()
    if unknown := set(flags) - FLAGS:
        raise ValueError(f"{row!r} has unknown flags: {', '.join(sorted(unknown))}")
    return Tensor(
        name=name,
        type=types[kind] if kind.startswith("$") else kind,
        dims=tuple(int(size) for size in dims.strip("[]").split(",")),
        is_optional="optional" in flags,
        is_ragged="ragged" in flags,
        is_scalar="scalar" in flags,
        is_own="own" in flags,
    )


def _step(content: Mapping[str, Any]) -> Step:
    return Step(
        model=content["model"],
        input_map=content["input_map"] | _same(content.get("same_inputs", ())),
        output_map=content["output_map"] | _same(content.get("same_outputs", ())),
    )


def _same(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}
