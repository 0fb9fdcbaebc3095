"""W8A16: 8-bit weights with one scale per output channel, rounded when the engine is built."""

from __future__ import annotations

import dataclasses

from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.quant.algorithms import fp16
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear


def quantize(group: LinearGroup, settings: Settings) -> dict[str, Linear]:
    """Return float weights that the builder rounds."""
    return {part: dataclasses.replace(kept, algo="W8A16") for part, kept in fp16.quantize(group, settings).items()}


# The checkpoint carries float weights: trtllm-build rounds them (amax/128 per row) into the layout of its own SM, so
# the checkpoint stays portable. Pre-rounded bytes would be tied to one SM and one release.
ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="int8",
        title="8-bit weights, 16-bit activations",
        aliases=("w8a16", "int8_wo"),
        quant_algo="W8A16",
        weight_bits=8,
        activation_bits=16,
        exclude_modules=(),  # TensorRT-LLM's own default list
        notes="rounded per output channel when the engine is built",
    ),
    quantize=quantize,
)
