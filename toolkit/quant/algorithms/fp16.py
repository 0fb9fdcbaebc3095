"""16 bits: no quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.quant.float16 import as_dtype
from toolkit.specs import QuantRecipe

if TYPE_CHECKING:
    import torch


def quantize(group: LinearGroup, settings: Settings) -> dict[str, torch.Tensor]:
    """Return the weights in the model dtype."""
    return {f"{name}.weight": as_dtype(weight, settings.dtype, name) for name, weight in group.weights.items()}


ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="fp16",
        title="16-bit weights and activations",
        aliases=("none", "16bit"),
        quant_algo=None,
        weight_bits=16,
        activation_bits=16,
        notes="float16, or bfloat16 with --dtype bfloat16",
    ),
    quantize=quantize,
)
