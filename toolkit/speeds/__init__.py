"""What the time model was fitted to, as data: one TOML file with its date, its rows and its errors."""

from __future__ import annotations

import functools
from pathlib import Path

from toolkit.registry import toml_document
from toolkit.specs import SpeedConstants, from_json

FITTED = Path(__file__).parent / "fitted.toml"


def read(path: Path) -> SpeedConstants:
    """Return the constants of one TOML file."""
    return from_json(SpeedConstants, toml_document(path))


@functools.cache
def constants() -> SpeedConstants:
    """Return the constants that trtk ships; `benchmarks/planner_fit.py` writes them."""
    return read(FITTED)
