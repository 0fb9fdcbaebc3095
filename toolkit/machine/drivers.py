"""Which driver a CUDA toolkit needs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.registry import toml_document

TABLE = Path(__file__).with_name("drivers.toml")


@dataclass(frozen=True, kw_only=True)
class Needed:
    """Drivers for one CUDA toolkit."""

    released_with: str  # everything works from here on
    oldest: str  # runs from here on, without what is newer than the driver


def needed_for(cuda: str) -> Needed:
    """Return the drivers for a CUDA toolkit such as 13.1.0; raises KeyError for one that the table does not have."""
    table = _table()
    return Needed(
        released_with=table["released_with"][cuda], oldest=table["oldest_of_major"][cuda.split(".", maxsplit=1)[0]]
    )


def is_at_least(version: str, wanted: str) -> bool:
    """Whether a driver is as new as another: 590.44.01 is newer than 590.9."""
    return _numbers(version) >= _numbers(wanted)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


@functools.cache
def _table() -> dict[str, Any]:
    return toml_document(TABLE)
