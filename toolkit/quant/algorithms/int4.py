"""W4A16_AWQ: 4-bit weights whose salient channels are scaled up, and whose rounding errors make up for each other."""

from __future__ import annotations

from toolkit.quant import awq, gptq
from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.quant.statistics import Wanted
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear, split_rows


def quantize(group: LinearGroup, settings: Settings) -> dict[str, Linear]:
    """Return packed integers under searched channel scales (shared by the group) and clips, rounded with feedback."""
    import torch

    assert settings.group_size, "plan.conversion chose no group size"
    assert group.statistics, "int4 needs calibration"
    weight = torch.cat([part.float() for part in group.weights.values()])
    found = awq.search(weight, group.statistics, group_size=settings.group_size)
    # What the engine multiplies activations by is rounded to the model dtype, so the weights are scaled by its inverse.
    prequant = (1 / found.channel_scales).to(settings.dtype)
    scaled = weight / prequant.float()
    gram = group.statistics.gram * prequant.float().outer(prequant.float())
    scales = awq.clipped_scales(scaled, gram, group_size=settings.group_size)
    integers = gptq.rounded(scaled, scales, gram)
    integers = integers.to(torch.int8)
    whole = Linear(algo="W4A16_AWQ", weight=integers, weight_scale=scales, prequant=prequant)
    return split_rows(whole, {part: weight.shape[0] for part, weight in group.weights.items()})


ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="int4",
        title="4-bit weights by AWQ, 16-bit activations",
        aliases=("int4_awq", "awq", "w4a16_awq"),
        quant_algo="W4A16_AWQ",
        weight_bits=4,
        activation_bits=16,
        default_group_size=128,
        needs_calibration=True,
        papers=(
            "Lin et al., AWQ: Activation-aware Weight Quantization, arXiv:2306.00978",
            "Frantar et al., GPTQ: Accurate Post-Training Quantization, arXiv:2210.17323",
        ),
    ),
    quantize=quantize,
    wanted=Wanted.CHANNELS | Wanted.GRAM,
)
