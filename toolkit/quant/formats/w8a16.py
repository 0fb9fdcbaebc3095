"""W8A16: float weights in the file; the builder rounds them to 8 bits per output channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant.format import WeightFormat
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch

#: trtllm-build's rule: scale = amax/128, integers -128..127.
LEVELS = 128


def dequantize(linear: Linear) -> torch.Tensor:
    """Return what the builder makes of the weight: integers times scales that are kept in 16 bits."""
    weight = linear.weight.float()
    amax = weight.abs().amax(1, keepdim=True)
    scales = (amax.masked_fill(amax == 0, 1.0) / LEVELS).to(linear.weight.dtype).float()
    return (weight / scales).round_().clamp_(-LEVELS, LEVELS - 1).mul_(scales)


FORMAT = WeightFormat(algo="W8A16", dequantize=dequantize)
