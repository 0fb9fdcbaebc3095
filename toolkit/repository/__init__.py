"""Triton model repositories: rendered from a spec, written whole, checked for what a parser does not see."""

from __future__ import annotations

from toolkit import registry
from toolkit.repository.checking import Result, check, examine, need_right
from toolkit.repository.guiding import vocabulary
from toolkit.repository.layout import Layout
from toolkit.repository.seen import EngineFacts, Surroundings
from toolkit.repository.writing import RECORD, record_of, texts_in, write
from toolkit.specs import RepositorySpec

__all__ = [
    "RECORD",
    "EngineFacts",
    "Layout",
    "Result",
    "Surroundings",
    "catalogue",
    "check",
    "examine",
    "need_right",
    "record_of",
    "render",
    "texts_in",
    "vocabulary",
    "write",
]


def catalogue() -> dict[str, Layout]:
    """Return every layout by name."""
    entries = registry.entries_in("toolkit.repository.layouts", "LAYOUT", Layout)
    return registry.by_name(entries, lambda layout: [layout.name])


def render(spec: RepositorySpec) -> dict[str, str]:
    """Return the files of a model repository: path below it → text. The same spec gives the same bytes."""
    return registry.pick(catalogue(), spec.layout, kind="repository layout").render(spec)
