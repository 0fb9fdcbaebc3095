"""FP8 by rows and tokens: E4M3 weights with a scale per output channel, activations scaled token by token."""

from __future__ import annotations

from toolkit.quant import float8
from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.quant.blocks import row_amax
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear


def quantize(group: LinearGroup, settings: Settings) -> dict[str, Linear]:  # noqa: ARG001 - one signature for all
    """Return E4M3 weights under amax/448 of each row."""
    linears = {}
    for part, weight in group.weights.items():
        scales = float8.scale_of(row_amax(weight))
        linears[part] = Linear(
            algo="FP8_PER_CHANNEL_PER_TOKEN", weight=float8.stored_weight(weight, scales), weight_scale=scales
        )
    return linears


ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="fp8_rowwise",
        title="8-bit floats by row and token (E4M3)",
        aliases=("fp8_pc_pt", "fp8_per_channel_per_token"),
        quant_algo="FP8_PER_CHANNEL_PER_TOKEN",
        weight_bits=8,
        activation_bits=8,
        papers=(
            "Micikevicius et al., FP8 Formats for Deep Learning, arXiv:2209.05433",
            "Dubey et al., The Llama 3 Herd of Models (row-wise FP8), arXiv:2407.21783",
        ),
        notes="no calibration: activations are scaled when they come",
    ),
    quantize=quantize,
)
