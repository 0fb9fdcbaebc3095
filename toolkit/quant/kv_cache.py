"""What the KV cache makes of keys and values: one static scale per tensor, 8 bits per number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from toolkit.quant import float8
from toolkit.quant.statistics import InputStatistics, Wanted
from toolkit.registry import pick

if TYPE_CHECKING:
    import torch

INT8_MAX = 127.0
#: What calibration watches, by the decoder's names, and the scales that are made of it.
SCALE_OF = {"attention.keys": "attention.k_scale", "attention.values": "attention.v_scale"}
WATCHED = dict.fromkeys(SCALE_OF, Wanted.AMAX)


def scales(kind: str, statistics: Mapping[str, InputStatistics]) -> dict[str, float]:
    """Return the scales of keys and values for `fp8` or `int8`; fp8's is 1 where nothing was measured.

    E4M3 keeps its precision over a wide range, so its scale only grows where values would saturate: ModelOpt's rule.
    """
    amax = {name: statistics[name].amax for name in SCALE_OF if name in statistics}
    if kind == "fp8":
        return {scale: max(1.0, amax.get(name, 0.0) / float8.MAX) for name, scale in SCALE_OF.items()}
    return {scale: (amax[name] or INT8_MAX) / INT8_MAX for name, scale in SCALE_OF.items()}


def _fp8(values: torch.Tensor, scale: float) -> torch.Tensor:
    import torch

    return float8.rounded(values, torch.tensor(scale, device=values.device))


def _int8(values: torch.Tensor, scale: float) -> torch.Tensor:
    return (values / scale).round_().clamp_(-128, 127).mul_(scale)


def rounding_of(kv_cache_algo: str | None) -> Callable[[torch.Tensor, float], torch.Tensor] | None:
    """Return what (tensor, scale) becomes when it is read back from the cache, float32; None for the model's dtype."""
    return pick({"FP8": _fp8, "INT8": _int8}, kv_cache_algo, kind="KV cache type") if kv_cache_algo else None
