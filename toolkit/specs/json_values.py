"""Nouns as plain JSON values, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def to_json(noun: Any) -> Any:
    """Return a noun as plain JSON values."""
    if dataclasses.is_dataclass(noun) and not isinstance(noun, type):
        return {item.name: to_json(getattr(noun, item.name)) for item in dataclasses.fields(noun)}
    if isinstance(noun, Mapping):
        return {str(key): to_json(value) for key, value in noun.items()}
    if isinstance(noun, (list, tuple)):
        return [to_json(value) for value in noun]
    return noun


def from_json(kind: type[T], document: Mapping[str, Any]) -> T:
    """Return a noun from plain JSON values; nested nouns and tuples are rebuilt from the annotations."""
    hints = _hints(kind)
    return kind(**{name: _rebuilt(hints[name], value) for name, value in document.items() if name in hints})


def _hints(kind: type) -> dict[str, Any]:
    import typing

    return typing.get_type_hints(kind)


def _rebuilt(hint: Any, value: Any) -> Any:
    import types
    import typing

    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if types.UnionType is origin or typing.Union is origin:  # NOUN | None
        kinds = [argument for argument in arguments if argument is not type(None)]
        return value if value is None or len(kinds) > 1 else _rebuilt(kinds[0], value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_rebuilt(arguments[0], item) for item in value)
    if isinstance(value, Mapping) and len(arguments) == 2:
        return {key: _rebuilt(arguments[1], item) for key, item in value.items()}
    return value
