"""The validators, one after another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolkit import registry
from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Validator


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one validator said."""

    name: str
    title: str
    outcome: Outcome


def catalogue() -> list[Validator]:
    """Return every validator, in order."""
    entries = registry.entries_in("toolkit.validation.validators", "VALIDATOR", Validator)
    return sorted(entries, key=lambda one: one.order)


def examine(path: Path) -> list[Result]:
    """Return what every validator says of a folder."""
    folder = Folder(path)
    return [Result(name=one.name, title=one.title, outcome=one.run(folder)) for one in catalogue()]
