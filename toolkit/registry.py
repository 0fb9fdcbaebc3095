"""A folder of modules read as a table of named entries."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from toolkit.errors import UnknownName

N = TypeVar("N")


def entries_in(package: str, attribute: str, kind: type[N]) -> list[N]:
    """Return the ATTRIBUTE of every module in PACKAGE; each must be a KIND."""
    root = importlib.import_module(package)
    found = []
    for name in sorted(info.name for info in pkgutil.iter_modules(root.__path__)):
        entry = getattr(importlib.import_module(f"{package}.{name}"), attribute, None)
        if not isinstance(entry, kind):
            raise TypeError(f"{package}.{name} must define {attribute}, a {kind.__name__}")
        found.append(entry)
    return found


def by_name(entries: Iterable[N], names_of: Callable[[N], Iterable[str]]) -> dict[str, N]:
    """Index entries by every name they claim; a name claimed twice is an error that names both owners."""
    table: dict[str, N] = {}
    for entry in entries:
        for name in names_of(entry):
            if name in table and table[name] is not entry:
                raise ValueError(f"{name!r} is claimed by both {table[name]!r} and {entry!r}")
            table[name] = entry
    return table


def pick(table: Mapping[str, N], name: str, *, kind: str, command: str | None = None) -> N:
    """Return the entry called NAME, or raise UnknownName with the nearest names."""
    if name not in table:
        raise UnknownName(kind, name, table, command=command)
    return table[name]
