"""What the KV cache makes of keys and values: one static scale per tensor, 8 bits per number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolkit.quant import float8
from toolkit.registry import pick

if TYPE_CHECKING:
    import torch


def _fp8(values: torch.Tensor, scale: float) -> torch.Tensor:
    import torch

    return float8.rounded(values, torch.tensor(scale, device=values.device))


def _int8(values: torch.Tensor, scale: float) -> torch.Tensor:
    return (values / scale).round_().clamp_(-128, 127).mul_(scale)


def rounding_of(kv_cache_algo: str | None) -> Callable[[torch.Tensor, float], torch.Tensor] | None:
    """Return what (tensor, scale) becomes when it is read back from the cache, float32; None for the model's dtype."""
    return pick({"FP8": _fp8, "INT8": _int8}, kv_cache_algo, kind="KV cache type") if kv_cache_algo else None
