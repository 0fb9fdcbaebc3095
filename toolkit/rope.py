"""Rotary position embeddings: inverse frequencies from a model's rope settings, in plain Python floats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from toolkit.errors import PlanInfeasible

SUPPORTED = ("default", "linear", "llama3")


def inverse_frequencies(head_dim: int, theta: float, scaling: Mapping[str, Any] | None) -> list[float]:
    """Return the head_dim/2 inverse frequencies (radians per position).

    `linear` divides them by its factor; `llama3` divides only wavelengths beyond the original context and blends in
    between (Llama 3.1's own rule: low_freq_factor, high_freq_factor, original_max_position_embeddings).
    Raises PlanInfeasible for a rope_type that is not known.
    """
    plain = [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    rope_type = scaling["rope_type"] if scaling else "default"
    if rope_type == "default" or scaling is None:
        return plain
    if rope_type == "linear":
        return [frequency / float(scaling["factor"]) for frequency in plain]
    if rope_type == "llama3":
        return [_llama3(frequency, scaling) for frequency in plain]
    raise PlanInfeasible(
        f"trtk does not know rope_type {rope_type!r}; it knows {', '.join(SUPPORTED)}.",
        hint="`trtk models` lists what each family supports.",
    )


def _llama3(frequency: float, scaling: Mapping[str, Any]) -> float:
    factor, original = float(scaling["factor"]), float(scaling["original_max_position_embeddings"])
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    wavelength = 2 * math.pi / frequency
    if wavelength < original / high:
        return frequency
    if wavelength > original / low:
        return frequency / factor
    smooth = (original / wavelength - low) / (high - low)
    return (1 - smooth) * frequency / factor + smooth * frequency
