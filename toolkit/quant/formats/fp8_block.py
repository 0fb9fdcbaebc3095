"""FP8_BLOCK_SCALES: E4M3 weights in squares of 128, inputs in runs of 128 of each token; unified checkpoints only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import float8_blocks
from toolkit.quant.format import HF_NAMES, WeightFormat
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch


def dequantize(linear: Linear) -> torch.Tensor:
    """Return each square times its scale, float32 [N, K]."""
    assert linear.weight_scale is not None, "FP8_BLOCK_SCALES has block scales"
    return float8_blocks.dequantized(linear.weight, linear.weight_scale)


def quantize_input(inputs: torch.Tensor, linear: Linear) -> torch.Tensor:  # noqa: ARG001 - one signature for all
    """Round each token's runs of 128 to E4M3 under their own scales."""
    return float8_blocks.rounded_inputs(inputs)


FORMAT = WeightFormat(
    algo="FP8_BLOCK_SCALES",
    dequantize=dequantize,
    quantize_input=quantize_input,
    hf_names={**HF_NAMES, "weight_scale": "weight_scale_inv"},  # DeepSeek's word, which loaders look for; it multiplies
)
