"""16 bits: no quantization."""

from __future__ import annotations

from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.quant.float16 import as_dtype
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear


def quantize(group: LinearGroup, settings: Settings) -> dict[str, Linear]:
    """Return the weights in the model dtype."""
    return {
        part: Linear(weight=as_dtype(weight, settings.dtype, f"Layer {group.layer}'s {part}"))
        for part, weight in group.weights.items()
    }


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
