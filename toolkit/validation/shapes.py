"""Parts of a document that may have any shape: the schemas say what is wrong, nobody stumbles over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, and nothing of anything else."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return the mappings of a list, none of anything else."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def words(value: Any) -> list[str]:
    """Return the texts of a list, none of anything else."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
