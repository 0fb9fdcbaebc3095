"""A folder of modules, or of TOML files, read as a table of named entries."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from toolkit.errors import UnknownName
from toolkit.specs import from_json

N = TypeVar("N")


def toml_document(path: Path) -> dict[str, Any]:
    """Return what a TOML file says."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    return document


def toml_entry(path: Path, kind: type[N]) -> N:
    """Return the KIND that one TOML file describes, named after the file; a key that KIND does not have is an error."""
    document = toml_document(path)
    unknown = document.keys() - {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise ValueError(f"{path} has keys that {kind.__name__} does not have: {', '.join(sorted(unknown))}")
    if document.get("name") != path.stem:
        raise ValueError(f"{path} must have the name {path.stem!r}, not {document.get('name')!r}")
    return from_json(kind, document)


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
