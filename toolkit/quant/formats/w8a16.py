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
    if linear.weight_scale is not None:  # a unified checkpoint has the integers
        return linear.weight.float().mul_(linear.weight_scale.float().unsqueeze(1))
    integers, scales = rounded(linear.weight)
    return integers.float().mul_(scales.float())


def rounded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return int8 [N, K] and scales [N, 1] in the weight's own dtype, as the builder makes them."""
    import torch

    plain = weight.float()
    amax = plain.abs().amax(1, keepdim=True)
    scales = (amax.masked_fill(amax == 0, 1.0) / LEVELS).to(weight.dtype)
    return (plain / scales.float()).round_().clamp_(-LEVELS, LEVELS - 1).to(torch.int8), scales


FORMAT = WeightFormat(algo="W8A16", dequantize=dequantize)
