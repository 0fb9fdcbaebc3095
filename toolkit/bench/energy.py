"""The energy that a run took, from the GPUs' own counters or from their power, and what of it falls on a token."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.specs.machine import GpuUse

COUNTER, POWER = "the GPUs' energy counters", "samples of the GPUs' power"
J_PER_KWH = 3.6e6


def used(samples: Sequence[Mapping[str, Any]], looks: Sequence[Sequence[GpuUse]]) -> dict[str, Any] | None:
    """Return joules from the first look to the last and where they come from; None where nothing says power."""
    joules = _counted(*looks) if len(looks) == 2 else None
    source = COUNTER if joules is not None else POWER
    points = [(one["t_s"], one["gpu_power_w"]) for one in samples if one["gpu_power_w"] is not None]
    if joules is None and len(points) >= 2:
        joules = sum((t - s) * (p + q) / 2 for (s, p), (t, q) in itertools.pairwise(points))
    if joules is None:
        return None
    watched_s = points[-1][0] - points[0][0] if len(points) >= 2 else 0.0
    return {"source": source, "joules": joules, "watched_s": watched_s}


def _counted(first: Sequence[GpuUse], last: Sequence[GpuUse]) -> float | None:
    before = {gpu.uuid: gpu.energy_j for gpu in first}
    grown = [
        gpu.energy_j - earlier
        for gpu in last
        if gpu.energy_j is not None and (earlier := before.get(gpu.uuid)) is not None
    ]
    return sum(grown) if grown and len(grown) == len(last) else None


def per_token(found: Mapping[str, Any] | None, *, duration_s: float, output_tokens: int) -> dict[str, Any] | None:
    """Return the energy of a run as report.json has it: a watch that was a little longer or shorter is scaled to it."""
    if found is None or not found["watched_s"]:
        return None
    watts = found["joules"] / found["watched_s"]
    joules = watts * duration_s
    return {
        "source": found["source"],
        "joules": joules,
        "mean_power_w": watts,
        "joules_per_output_token": joules / output_tokens if output_tokens else None,
        "output_tokens_per_kwh": output_tokens / joules * J_PER_KWH if joules > 0 else None,
    }
