"""Rotary position embeddings: inverse frequencies from a model's rope settings, in plain Python floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from toolkit.errors import PlanInfeasible
from toolkit.specs import ModelSpec

#: The rope types that we know, and what each must say besides its base.
NEEDED_SETTINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("original_max_position_embeddings",),
    "longrope": ("short_factor", "long_factor", "original_max_position_embeddings"),
}
#: YaRN: dimensions that turn more often than this within the original context are left alone, and less often than
#: this are interpolated in full.
YARN_BETA_FAST, YARN_BETA_SLOW = 32.0, 1.0


def rotary_of(model: ModelSpec, *, length: int, is_local: bool = False) -> tuple[list[float], float]:
    """Return `rotary` of a model's layers for text of LENGTH tokens; sliding layers (IS_LOCAL) may have their own."""
    dim = model.rotary_dim or model.head_dim
    if is_local and model.rope_local_theta:
        return rotary(dim, model.rope_local_theta, None)
    longest = model.max_position_embeddings
    return rotary(dim, model.rope_theta, model.rope_scaling, length=length, max_position=longest)


def rotary(
    dim: int, theta: float, scaling: Mapping[str, Any] | None, *, length: int = 0, max_position: int = 0
) -> tuple[list[float], float]:
    """Return dim/2 inverse frequencies (radians per position) and the factor of cosines and sines.

    LENGTH is that of the text, which `dynamic` and `longrope` depend on; MAX_POSITION the model's longest context.
    Raises PlanInfeasible for a rope_type that is not known, or that misses a setting.
    """
    if scaling is None:
        return _plain(dim, theta), 1.0
    check(scaling, dim=dim)
    return RULES[scaling["rope_type"]](dim, theta, scaling, (length, max_position))


def fixed_until(model: ModelSpec) -> int | None:
    """Return the length of text beyond which every token of it is turned otherwise; None where there is none."""
    scaling = model.rope_scaling or {}
    if scaling.get("rope_type") == "dynamic":
        return model.max_position_embeddings
    return int(scaling["original_max_position_embeddings"]) if scaling.get("rope_type") == "longrope" else None


def check(scaling: Mapping[str, Any], *, dim: int) -> None:
    """Raise PlanInfeasible when a rope_type is not known, misses a setting, or has factors for another width."""
    rope_type = scaling["rope_type"]
    if rope_type not in NEEDED_SETTINGS:
        raise PlanInfeasible(
            f"trtk does not know rope_type {rope_type!r}; it knows {', '.join(NEEDED_SETTINGS)}.",
            hint="`trtk models` lists what each family supports.",
        )
    for name in NEEDED_SETTINGS[rope_type]:
        if scaling.get(name) is None:
            raise PlanInfeasible(
                f"config.json's rope scaling of type {rope_type!r} has no {name!r}.",
                hint="Download the model's config.json again.",
            )
    if rope_type == "longrope":
        for name in ("short_factor", "long_factor"):
            if len(scaling[name]) != dim // 2:
                raise PlanInfeasible(
                    f"config.json's rope scaling has {len(scaling[name])} numbers in {name!r}, but {dim} rotary "
                    f"dimensions need {dim // 2}.",
                    hint="Download the model's config.json again.",
                )


Rule = Callable[[int, float, Mapping[str, Any], tuple[int, int]], tuple[list[float], float]]


def _plain(dim: int, theta: float) -> list[float]:
    return [theta ** (-2 * i / dim) for i in range(dim // 2)]


def _default(dim: int, theta: float, _: Mapping[str, Any], __: tuple[int, int]) -> tuple[list[float], float]:
    return _plain(dim, theta), 1.0


def _linear(dim: int, theta: float, scaling: Mapping[str, Any], _: tuple[int, int]) -> tuple[list[float], float]:
    """Position interpolation (Chen et al. 2023, "Extending Context Window of Large Language Models")."""
    return [frequency / float(scaling["factor"]) for frequency in _plain(dim, theta)], 1.0


def _dynamic(dim: int, theta: float, scaling: Mapping[str, Any], lengths: tuple[int, int]) -> tuple[list[float], float]:
    """NTK-aware scaling of the base, for text longer than the model's context; plain below that."""
    length, max_position = lengths
    factor = float(scaling["factor"])
    stretch = factor * max(length, max_position) / max_position - (factor - 1) if max_position else 1.0
    return _plain(dim, theta * stretch ** (dim / (dim - 2))), 1.0


def _llama3(dim: int, theta: float, scaling: Mapping[str, Any], _: tuple[int, int]) -> tuple[list[float], float]:
    """Llama 3.1's own rule: interpolate wavelengths beyond the original context, blend in between."""
    factor, original = float(scaling["factor"]), float(scaling["original_max_position_embeddings"])
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])

    def scaled(frequency: float) -> float:
        wavelength = 2 * math.pi / frequency
        if wavelength < original / high:
            return frequency
        if wavelength > original / low:
            return frequency / factor
        smooth = (original / wavelength - low) / (high - low)
        return (1 - smooth) * frequency / factor + smooth * frequency

    return [scaled(frequency) for frequency in _plain(dim, theta)], 1.0


def _yarn(dim: int, theta: float, scaling: Mapping[str, Any], lengths: tuple[int, int]) -> tuple[list[float], float]:
    """YaRN (Peng et al. 2023): interpolate slow dimensions, keep fast ones, ramp between; sharpen attention."""
    original = float(scaling["original_max_position_embeddings"])
    factor = float(scaling.get("factor") or lengths[1] / original)

    def dimension_of(rotations: float) -> float:
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = dimension_of(float(scaling.get("beta_fast") or YARN_BETA_FAST))
    high = dimension_of(float(scaling.get("beta_slow") or YARN_BETA_SLOW))
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = high - low or 0.001
    ramp = [min(max((i - low) / width, 0.0), 1.0) for i in range(dim // 2)]
    plain = _plain(dim, theta)
    mixed = [frequency * (1 - share + share / factor) for frequency, share in zip(plain, ramp, strict=True)]
    return mixed, _yarn_attention_factor(factor, scaling)


def _yarn_attention_factor(factor: float, scaling: Mapping[str, Any]) -> float:
    def sharpness(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    given = scaling.get("attention_factor")
    if given is not None:
        return float(given)
    weight, weight_of_all = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return sharpness(weight) / sharpness(weight_of_all) if weight and weight_of_all else sharpness(1.0)


def _longrope(
    dim: int, theta: float, scaling: Mapping[str, Any], lengths: tuple[int, int]
) -> tuple[list[float], float]:
    """LongRoPE (Ding et al. 2024): a searched divisor for each dimension, one list for short text, one for long."""
    length, max_position = lengths
    original = float(scaling["original_max_position_embeddings"])
    divisors = scaling["long_factor" if length > original else "short_factor"]
    frequencies = [frequency / float(by) for frequency, by in zip(_plain(dim, theta), divisors, strict=True)]
    factor = float(scaling.get("factor") or max_position / original)
    given = scaling.get("attention_factor")
    if given is not None:
        return frequencies, float(given)
    return frequencies, math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


RULES: dict[str, Rule] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
