"""SmoothQuant: 8-bit weights and activations, after large input channels were made smaller and their weights larger."""

from __future__ import annotations

from toolkit.quant import int8, smoothquant
from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.quant.statistics import Wanted
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear


def quantize(group: LinearGroup, settings: Settings) -> dict[str, Linear]:
    """Return integers with a scale per row; the whole group shares the factors and the scale of its input."""
    assert group.statistics, "int8_sq needs calibration"
    prequant = smoothquant.search(group, settings.dtype)
    activation_scale = smoothquant.activation_scale(group.statistics, prequant.float())
    linears = {}
    for part, weight in group.weights.items():
        integers, scales = int8.stored_weight(weight, prequant.float())
        linears[part] = Linear(
            algo="W8A8_SQ_PER_CHANNEL",
            weight=integers,
            weight_scale=scales,
            activation_scale=activation_scale,
            prequant=prequant,
        )
    return linears


ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="int8_sq",
        title="8-bit weights and activations by SmoothQuant",
        aliases=("sq", "smoothquant", "w8a8", "w8a8_sq"),
        quant_algo="W8A8_SQ_PER_CHANNEL",
        weight_bits=8,
        activation_bits=8,
        needs_calibration=True,
        papers=("Xiao et al., SmoothQuant: Accurate and Efficient Post-Training Quantization, arXiv:2211.10438",),
    ),
    quantize=quantize,
    wanted=Wanted.CHANNELS,
)
