"""What a card and an engine reach, measured: five loads, three constants, kept for every plan that comes after."""

from __future__ import annotations

from toolkit.calibration.fitting import MIN_POINTS, Circumstances, fitted
from toolkit.calibration.loads import LOADS, Load, loads_within, point_of
from toolkit.calibration.store import best_for, folder, read_all, write

__all__ = [
    "LOADS",
    "MIN_POINTS",
    "Circumstances",
    "Load",
    "best_for",
    "fitted",
    "folder",
    "loads_within",
    "point_of",
    "read_all",
    "write",
]
