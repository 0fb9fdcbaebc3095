"""Weights that stay in 16 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.errors import BuildError

if TYPE_CHECKING:
    import torch


def as_dtype(weight: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    """Return a weight in another float dtype; raises BuildError where it would overflow to Inf."""
    import torch

    cast = weight.to(dtype)
    if dtype == torch.float16 and cast.numel() and not all(map(torch.isfinite, torch.aminmax(cast))):
        raise BuildError(
            f"{name} has the value {float(weight.abs().max()):.4g}, beyond float16's largest of 65504.",
            hint="Use --dtype bfloat16.",
        )
    return cast
