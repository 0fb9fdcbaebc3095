"""NVFP4: 4-bit float weights and activations in blocks of 16."""

from __future__ import annotations

from toolkit.quant import nvfp4, nvfp4_search
from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.quant.blocks import amax
from toolkit.quant.statistics import Wanted
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear


def quantize(group: LinearGroup, settings: Settings) -> dict[str, Linear]:  # noqa: ARG001 - one signature for all
    """Return codes and block scales; parts of a module share the global scale, the group shares that of its input."""
    import torch

    assert group.statistics, "nvfp4 needs calibration"
    gram = group.statistics.gram
    activation_scale = nvfp4.global_scale(torch.tensor(group.statistics.amax, device=gram.device))
    global_scales: dict[str, torch.Tensor] = {}
    for module in group.modules:
        scale = nvfp4.global_scale(torch.stack([amax(weight) for weight in module.values()]).amax())
        global_scales |= dict.fromkeys(module, scale)
    return {
        part: Linear(
            algo="NVFP4",
            weight=codes,
            weight_scale=scales,
            weight_scale_2=global_scales[part],
            activation_scale=activation_scale,
        )
        for part, (codes, scales) in nvfp4_search.quantized(group.weights, global_scales, gram).items()
    }


ALGORITHM = Algorithm(
    recipe=QuantRecipe(
        name="nvfp4",
        title="4-bit float weights and activations in blocks of 16 (E2M1)",
        aliases=("fp4",),
        quant_algo="NVFP4",
        weight_bits=4,
        activation_bits=4,
        default_group_size=nvfp4.BLOCK,
        group_sizes=(nvfp4.BLOCK,),
        needs_calibration=True,
        papers=(
            "NVIDIA, Pretraining Large Language Models with NVFP4, arXiv:2509.25149",
            "Cook et al., Four Over Six, arXiv:2512.02010",
            "Frantar et al., GPTQ: Accurate Post-Training Quantization, arXiv:2210.17323",
        ),
    ),
    quantize=quantize,
    wanted=Wanted.GRAM,
)
