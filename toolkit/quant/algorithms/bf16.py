"""16 bits in bfloat16: no quantization."""

from __future__ import annotations

from toolkit.quant.algorithm import Algorithm
from toolkit.quant.algorithms import fp16
from toolkit.specs import QuantRecipe

ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="bf16",
        title="16-bit weights and activations (bfloat16)",
        aliases=("bfloat16",),
        quant_algo=None,
        weight_bits=16,
        activation_bits=16,
        dtype="bfloat16",
        notes="fp16 with --dtype bfloat16",
    ),
    quantize=fp16.quantize,
)
