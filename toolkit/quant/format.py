"""What a storage format is: how its linears are packed, named in files, and computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolkit.quant.product import product
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch

#: Linear's fields → TensorRT-LLM's names below a module.
TRTLLM_NAMES = {
    "weight": "weight",
    "weight_scale": "weights_scaling_factor",
    "weight_scale_2": "weights_scaling_factor_2",
    "activation_scale": "activation_scaling_factor",
    "prequant": "prequant_scaling_factor",
    "bias": "bias",
}
#: Linear's fields → names in a unified Hugging Face checkpoint.
HF_NAMES = {
    "weight": "weight",
    "weight_scale": "weight_scale",
    "weight_scale_2": "weight_scale_2",
    "activation_scale": "input_scale",
    "prequant": "pre_quant_scale",
    "bias": "bias",
}


def as_stored(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight of which a file holds one element each."""
    return weight


def as_it_comes(inputs: torch.Tensor, linear: Linear) -> torch.Tensor:  # noqa: ARG001 - one signature for all
    """Return inputs that are not quantized."""
    return inputs


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """One module of quant/formats.

    `dequantize` returns float32 [N, K], what multiplies the input after its prequant factors. `quantize_input` returns
    what the input becomes in the kernel, as float32. `pack` and `unpack` go between one element a weight and the file.
    """

    algo: str | None  # TensorRT-LLM's quant_algo
    dequantize: Callable[[Linear], torch.Tensor]
    quantize_input: Callable[[torch.Tensor, Linear], torch.Tensor] = as_it_comes
    pack: Callable[[torch.Tensor], torch.Tensor] = as_stored
    unpack: Callable[[torch.Tensor], torch.Tensor] = as_stored
    trtllm_names: Mapping[str, str] = field(default_factory=lambda: TRTLLM_NAMES)
    hf_names: Mapping[str, str] = field(default_factory=lambda: HF_NAMES)
    trtllm_scalar_shape: tuple[int, ...] = (1,)  # of scales that belong to the whole linear; () in unified checkpoints


def run(linear: Linear, inputs: torch.Tensor, form: WeightFormat) -> torch.Tensor:
    """Return x W' + b in float32, for float32 inputs [..., K], with the format's own rounding of weight and input."""
    if linear.prequant is not None:
        inputs = inputs * linear.prequant.float()
    bias = None if linear.bias is None else linear.bias.float()
    weight = linear.weight if linear.algo is None else form.dequantize(linear)
    return product(form.quantize_input(inputs, linear), weight, bias)
