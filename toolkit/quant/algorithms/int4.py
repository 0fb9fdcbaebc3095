"""W4A16_AWQ: 4-bit weights whose salient channels are scaled up, and whose rounding errors make up for each other."""

from __future__ import annotations

from toolkit.quant import awq, int4_search
from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.quant.statistics import Wanted
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear


def quantize(group: LinearGroup, settings: Settings) -> dict[str, Linear]:
    """Return integers under searched channel scales (shared by the group) and clips, rounded with feedback."""
    assert settings.group_size, "plan.conversion chose no group size"
    return int4_search.quantized(group, awq.prequant(group, settings), group_size=settings.group_size)


ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="int4",
        title="4-bit weights by AWQ, 16-bit activations",
        aliases=("int4_awq", "awq", "w4a16_awq"),
        quant_algo="W4A16_AWQ",
        weight_bits=4,
        activation_bits=16,
        default_group_size=128,
        group_sizes=(128, 64, 32),
        needs_calibration=True,
        papers=(
            "Lin et al., AWQ: Activation-aware Weight Quantization, arXiv:2306.00978",
            "Frantar et al., GPTQ: Accurate Post-Training Quantization, arXiv:2210.17323",
        ),
    ),
    quantize=quantize,
    wanted=Wanted.CHANNELS | Wanted.GRAM,
)
