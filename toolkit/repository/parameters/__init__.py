"""What each model's `parameters` may say in each release: TOML tables, and values held against them."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import PlanInfeasible, UnknownName, UsageError
from toolkit.registry import toml_document
from toolkit.specs import from_json

FOLDER = Path(__file__).parent
#: What both of NVIDIA's backends read as a truth value.
TRUE, FALSE = ("True", "true", "TRUE", "1"), ("False", "false", "FALSE", "0")
TREE = re.compile(r"\{\d+(,\d+)*\}(,\{\d+(,\d+)*\})*")
WINDOWS = re.compile(r"\d+(,\d+)*")
DEVICES = re.compile(r"\d+(,\d+)*(;\d+(,\d+)*)*")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One key of a model's parameters."""

    kind: str  # integer, fraction, boolean, choice, path, text, windows, devices, tree, interval
    meaning: str
    default: str = ""
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    since: str = "0"  # of TensorRT-LLM
    until: str = ""  # first release without it
    required_since: str = ""  # first release that stops without it
    backends: tuple[str, ...] = ("tensorrtllm", "python")
    own: bool = False  # of trtk's Python: NVIDIA's releases say nothing about it
    set_by: str = ""  # it cannot be set as a parameter; this is what decides it

    def exists_in(self, version: str) -> bool:
        """Return whether TensorRT-LLM VERSION has it; every version has what is ours."""
        return self.own or (number(self.since) <= number(version) and not self.is_gone_in(version))

    def is_gone_in(self, version: str) -> bool:
        """Return whether TensorRT-LLM VERSION no longer has it."""
        return bool(self.until) and number(version) >= number(self.until)

    def is_required_in(self, version: str) -> bool:
        """Return whether a model of TensorRT-LLM VERSION stops without it."""
        return bool(self.required_since) and number(version) >= number(self.required_since)

    def span(self) -> str:
        """Return in words which releases have it."""
        return f"it went with {self.until}" if self.until else f"it came with {self.since}"

    def takes(self) -> str:
        """Return its legal values in words."""
        low = "" if self.minimum is None else f" from {self.minimum}"
        high = "" if self.maximum is None else f" to {self.maximum}"
        return {
            "integer": f"a whole number{low}{high}",
            "fraction": "a number from 0 to 1",
            "boolean": "true or false",
            "choice": ", ".join(choice or "nothing" for choice in self.choices),
            "windows": "whole numbers from 1, with commas between them",
            "devices": "numbers with commas inside a set and semicolons between sets: 0,1;2,3",
            "tree": "a tree such as {0},{0,0},{0,1}",
            "interval": "auto, or a whole number from 1",
        }.get(self.kind, f"a {self.kind}")

    def is_legal(self, value: str) -> bool:
        """Return whether VALUE is one that it takes."""
        if self.kind in {"integer", "interval"}:
            return (self.kind == "interval" and value == "auto") or self._is_number(value)
        if self.kind == "fraction":
            return re.fullmatch(r"\d*\.?\d+|\d+\.", value) is not None and 0 <= float(value) <= 1
        if self.kind == "windows":
            return WINDOWS.fullmatch(value) is not None and "0" not in value.split(",")
        patterns = {"devices": DEVICES, "tree": TREE}
        if self.kind in patterns:
            return patterns[self.kind].fullmatch(value) is not None
        return value in {"boolean": (*TRUE, *FALSE), "choice": self.choices}.get(self.kind, (value,))

    def _is_number(self, value: str) -> bool:
        if not value.isascii() or not value.isdecimal():
            return False
        is_below = self.maximum is not None and int(value) > self.maximum
        return int(value) >= (self.minimum or 0) and not is_below


def number(version: str) -> tuple[int, ...]:
    """Return 0.20.0 as (0, 20): releases of one line have the same parameters."""
    found = [int(digits) for digits in re.findall(r"\d+", version)[:2]]
    return tuple(found + [0] * (2 - len(found)))


@functools.cache
def table(role: str) -> Mapping[str, Parameter]:
    """Return every parameter that a kind of model has in some release; nothing for a kind that is not known."""
    path = FOLDER / f"{role}.toml"
    if not path.is_file():
        return {}
    fields = {field.name for field in dataclasses.fields(Parameter)}
    rows: dict[str, Parameter] = {}
    for key, content in toml_document(path).items():
        if unknown := content.keys() - fields:
            raise ValueError(f"{path}: {key} has {', '.join(sorted(unknown))}, which Parameter does not have")
        rows[key] = from_json(Parameter, content)
    return rows


def in_release(role: str, version: str, *, backend: str = "") -> dict[str, Parameter]:
    """Return the parameters of a kind of model in TensorRT-LLM VERSION, of one backend where it is named."""
    return {
        key: one
        for key, one in table(role).items()
        if one.exists_in(version) and (not backend or backend in one.backends)
    }


def need_settable(asked: Mapping[str, Mapping[str, str]], roles: Mapping[str, str], *, version: str) -> None:
    """Raise unless every asked value of model → key → value is legal in the release; ROLES says what each model is."""
    for model, values in asked.items():
        if model not in roles:
            raise UnknownName("model of this repository with parameters", model, roles)
        for key, value in values.items():
            _need_settable(model, key, value, role=roles[model], version=version)


def _need_settable(model: str, key: str, value: str, *, role: str, version: str) -> None:
    known = in_release(role, version)
    one = known.get(key)
    if one is None:
        if key in table(role):
            raise PlanInfeasible(
                f"{model}.{key} is not in TensorRT-LLM {version}: {table(role)[key].span()}.",
                hint="Leave it out, or take another --release; `trtk releases` lists them.",
            )
        raise UnknownName(f"parameter of {model}", key, known, command="trtk repo --parameters")
    if one.set_by:
        raise UsageError(f"{model}.{key} is decided by {one.set_by}.", hint=f"Leave --set {model}.{key} out.")
    if not one.is_legal(value):
        raise UsageError(
            f"{model}.{key} cannot be {value!r}.", hint=f"It is {_lower(one.meaning)}; it takes {one.takes()}."
        )


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def as_json(role: str, version: str) -> dict[str, Any]:
    """Return a kind of model's parameters for people and programs."""
    return {
        key: {"takes": one.takes(), "default": one.default, "meaning": one.meaning, "set_by": one.set_by}
        for key, one in in_release(role, version).items()
    }
