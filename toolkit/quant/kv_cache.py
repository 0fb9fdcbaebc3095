"""What the KV cache makes of keys and values: one static scale per tensor, 8 bits per number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from toolkit.quant import float8, int8
from toolkit.quant.statistics import InputStatistics, Wanted
from toolkit.registry import pick

if TYPE_CHECKING:
    import torch

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
    return {scale: (amax[name] or int8.QMAX) / int8.QMAX for name, scale in SCALE_OF.items()}


def rounding_of(kv_cache_algo: str | None) -> Callable[[torch.Tensor, float], torch.Tensor] | None:
    """Return what (tensor, scale) becomes when it is read back from the cache, float32; None for the model's dtype."""
    if kv_cache_algo is None:
        return None
    rounded = pick({"FP8": float8.rounded, "INT8": int8.rounded}, kv_cache_algo, kind="KV cache type")

    def through(values: torch.Tensor, scale: float) -> torch.Tensor:
        return rounded(values, values.new_tensor(scale))

    return through
