"""W4A16 in AWQ's format by GPTQ: clipped scales and rounding with feedback, prequant factors of 1."""

from __future__ import annotations

from toolkit.quant import int4_search
from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.quant.statistics import Wanted
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear


def quantize(group: LinearGroup, settings: Settings) -> dict[str, Linear]:
    """Return integers under searched clips, rounded with feedback."""
    import torch

    assert settings.group_size, "plan.conversion chose no group size"
    weight = next(iter(group.weights.values()))
    ones = torch.ones(weight.shape[1], dtype=settings.dtype, device=weight.device)
    return int4_search.quantized(group, ones, group_size=settings.group_size)


# TensorRT-LLM's own GPTQ layout holds bytes interleaved for one SM; AWQ's raw integers serve every one.
ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="int4_gptq",
        title="4-bit weights by GPTQ, 16-bit activations",
        aliases=("gptq",),
        quant_algo="W4A16_AWQ",
        weight_bits=4,
        activation_bits=16,
        default_group_size=128,
        group_sizes=(128, 64, 32),
        needs_calibration=True,
        papers=("Frantar et al., GPTQ: Accurate Post-Training Quantization, arXiv:2210.17323",),
        notes="AWQ's format with prequant factors of 1",
    ),
    quantize=quantize,
    wanted=Wanted.GRAM,
)
