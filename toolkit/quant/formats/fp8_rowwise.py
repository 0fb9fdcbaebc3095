"""FP8_PER_CHANNEL_PER_TOKEN: E4M3 weights with a scale per row, inputs scaled token by token when they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import float8
from toolkit.quant.format import TRTLLM_NAMES, WeightFormat
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch


def dequantize(linear: Linear) -> torch.Tensor:
    """Return each row times its scale, float32 [N, K]."""
    assert linear.weight_scale is not None, "FP8_PER_CHANNEL_PER_TOKEN has row scales"
    return linear.weight.float() * linear.weight_scale.unsqueeze(1)


def quantize_input(inputs: torch.Tensor, linear: Linear) -> torch.Tensor:  # noqa: ARG001 - one signature for all
    """Round each token to E4M3 under its own scale."""
    return float8.rounded(inputs, float8.token_scales(inputs))


FORMAT = WeightFormat(
    algo="FP8_PER_CHANNEL_PER_TOKEN",
    dequantize=dequantize,
    quantize_input=quantize_input,
    trtllm_names={**TRTLLM_NAMES, "weight_scale": "per_channel_scale"},
)
