"""NVFP4: 4-bit float weights and activations in blocks of 16."""

from __future__ import annotations

from toolkit.quant import gptq, nvfp4, nvfp4_search
from toolkit.quant.algorithm import Algorithm, LinearGroup, Settings
from toolkit.quant.blocks import amax
from toolkit.quant.statistics import Wanted, diagonal_blocks
from toolkit.specs import QuantRecipe
from toolkit.weights import Linear


def quantize(group: LinearGroup, settings: Settings) -> dict[str, Linear]:  # noqa: ARG001 - one signature for all
    """Return codes and block scales; parts of a module share the global scale, the group shares that of its input."""
    import torch

    assert group.statistics, "nvfp4 needs calibration"
    linears = {}
    gram = group.statistics.gram
    blocks, feedback = diagonal_blocks(gram, nvfp4.BLOCK), gptq.feedback(gram)
    activation_scale = nvfp4.global_scale(torch.tensor(group.statistics.amax, device=gram.device))
    for module in group.modules:
        scale = nvfp4.global_scale(torch.stack([amax(weight) for weight in module.values()]).amax())
        for part, weight in module.items():
            codes, scales = nvfp4_search.quantized(weight, scale, blocks, feedback)
            linears[part] = Linear(
                algo="NVFP4",
                weight=codes,
                weight_scale=scales,
                weight_scale_2=scale,
                activation_scale=activation_scale,
            )
    return linears


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
