"""NVFP4: E2M1 weights and inputs in blocks of 16, E4M3 scales for the blocks, float32 scales for weight and input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant import float4, nvfp4
from toolkit.quant.format import WeightFormat
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch


def dequantize(linear: Linear) -> torch.Tensor:
    """Return the codes' numbers times both their scales, float32 [N, K]."""
    assert linear.weight_scale is not None, "NVFP4 has block scales"
    assert linear.weight_scale_2 is not None, "NVFP4 has a global scale"
    return nvfp4.dequantized(float4.values(linear.weight), linear.weight_scale, linear.weight_scale_2)


def quantize_input(inputs: torch.Tensor, linear: Linear) -> torch.Tensor:
    """Round each token's blocks to E2M1 under E4M3 scales of their own and the static global scale."""
    assert linear.activation_scale is not None, "NVFP4 has a static input scale"
    return nvfp4.rounded_inputs(inputs, linear.activation_scale)


FORMAT = WeightFormat(
    algo="NVFP4",
    dequantize=dequantize,
    quantize_input=quantize_input,
    pack=float4.packed,
    unpack=float4.unpacked,
    trtllm_scalar_shape=(),
)
