"""W4A8_AWQ: the 4-bit weights of AWQ in E4M3 arithmetic with 8-bit float activations."""

from __future__ import annotations

import dataclasses

from toolkit.quant import awq, float8, int4, int4_search
from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.quant.statistics import Wanted
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear


def quantize(group: LinearGroup, settings: Settings) -> dict[str, Linear]:
    """Return AWQ's integers with a second weight scale for each module and one input scale for the group."""
    import torch

    assert settings.group_size, "plan.conversion chose no group size"
    assert group.statistics, "w4a8_awq needs calibration"
    prequant = awq.prequant(group, settings)
    linears = int4_search.quantized(group, prequant, group_size=settings.group_size)
    activation_scale = float8.scale_of((group.statistics.max_abs * prequant.float()).amax())
    for module in group.modules:
        amax = torch.stack([int4.dequantized_amax(linears[part]) for part in module]).amax()
        for part in module:
            linears[part] = dataclasses.replace(
                linears[part],
                algo="W4A8_AWQ",
                weight_scale_2=float8.scale_of(amax),
                activation_scale=activation_scale,
            )
    return linears


ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="w4a8_awq",
        title="4-bit weights by AWQ, 8-bit float activations",
        aliases=("w4a8",),
        quant_algo="W4A8_AWQ",
        weight_bits=4,
        activation_bits=8,
        default_group_size=128,
        group_sizes=(128,),
        needs_calibration=True,
        papers=(
            "Lin et al., AWQ: Activation-aware Weight Quantization, arXiv:2306.00978",
            "Frantar et al., GPTQ: Accurate Post-Training Quantization, arXiv:2210.17323",
            "Micikevicius et al., FP8 Formats for Deep Learning, arXiv:2209.05433",
        ),
    ),
    quantize=quantize,
    wanted=Wanted.CHANNELS | Wanted.GRAM,
)
