"""NVFP4 codes for known inputs: block scales by their output error, then rounding with feedback, some rows at a time.

A block's largest weight need not become 6: with another scale the seven others may fit better (the idea of Cook et al.,
Four Over Six, arXiv:2512.02010, taken on to every scale nearby).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from toolkit.quant import float4, gptq, nvfp4
from toolkit.quant.blocks import best_scales, chunks, gathered, row_blocks, scatter
from toolkit.quant.statistics import diagonal_blocks

if TYPE_CHECKING:
    import torch

#: What a block's scale is multiplied by: below 1 its largest weights are clipped, at 1.5 the largest becomes 4.
RATIOS = (1.0, 0.8, 0.9, 1.1, 1.25, 1.4, 1.5)


def quantized(
    weights: Mapping[str, torch.Tensor], global_scales: Mapping[str, torch.Tensor], gram: torch.Tensor
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return uint8 codes [N, K] and float8_e4m3fn block scales [N, K/16] of each part under its own global scale.

    `gram` [K, K] is E[x x'] of the input that all parts read.
    """
    import torch

    blocks, feedback = diagonal_blocks(gram, nvfp4.BLOCK), gptq.feedback(gram)
    codes, scales = {}, {}
    for part, weight in weights.items():
        codes[part] = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
        shape = (weight.shape[0], blocks.shape[0])
        scales[part] = torch.empty(shape, dtype=torch.float8_e4m3fn, device=weight.device)
    for pieces in chunks(weights):
        for part, rows in pieces:
            scales[part][rows] = searched_scales(weights[part][rows].float(), global_scales[part], blocks)
        real = torch.cat([scales[part][rows].float() * global_scales[part] for part, rows in pieces])
        numbers = gptq.rounded(gathered(weights, pieces), real, feedback, nearest=float4.nearest_)
        scatter(float4.codes(numbers), codes, pieces)
    return {part: (codes[part], scales[part]) for part in weights}


def searched_scales(weight: torch.Tensor, scale: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Return the float8_e4m3fn scales [N, K/16] with the least output error of each block alone."""
    import torch

    found = torch.empty(weight.shape[0], blocks.shape[0], dtype=torch.float8_e4m3fn, device=weight.device)
    for rows in row_blocks(weight):
        by_block = weight[rows].unflatten(1, (-1, nvfp4.BLOCK)).transpose(0, 1).contiguous()  # [K/16, n, 16]
        plain = nvfp4.block_scales(by_block, scale).float()  # [K/16, n, 1]
        stored = (nvfp4.stored_scales(plain * ratio).float() for ratio in RATIOS)
        tried = ((each, each * scale) for each in stored)
        found[rows] = best_scales(by_block, blocks, tried, nearest=float4.nearest_).squeeze(-1).T.to(found.dtype)
    return found
