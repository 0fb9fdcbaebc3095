"""FP8 in blocks: E4M3 weights in squares of 128 with a scale each, activations scaled by token and 128 channels."""

from __future__ import annotations

from toolkit.quant import float8_blocks
from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear


def quantize(group: LinearGroup, settings: Settings) -> dict[str, Linear]:  # noqa: ARG001 - one signature for all
    """Return E4M3 weights under amax/448 of each square."""
    linears = {}
    for part, weight in group.weights.items():
        scales = float8_blocks.block_scales(weight)
        linears[part] = Linear(
            algo="FP8_BLOCK_SCALES", weight=float8_blocks.stored(weight, scales), weight_scale=scales
        )
    return linears


ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="fp8_block",
        title="8-bit floats in 128 x 128 blocks (E4M3)",
        aliases=("fp8_pb_wo", "fp8_block_scales"),
        quant_algo="FP8_BLOCK_SCALES",
        weight_bits=8,
        activation_bits=8,
        layouts=("hf",),
        papers=("DeepSeek-AI, DeepSeek-V3 Technical Report, arXiv:2412.19437",),
        notes="unified Hugging Face checkpoint only: --format hf",
    ),
    quantize=quantize,
)
