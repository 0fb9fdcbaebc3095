"""x W' in float32 of a weight that is kept in 16 bits; for few tokens, cast in blocks that stay in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Weights that are cast at a time: 4 MB of float32.
BLOCK_WEIGHTS = 1 << 20
#: From so many tokens on, casting the whole weight costs little beside the product.
MANY_TOKENS = 256


def product(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return x W' + b in float32 for float32 inputs [..., K] and a float weight [N, K] of any dtype."""
    import torch

    flat = inputs.reshape(-1, inputs.shape[-1]).T
    if weight.dtype == torch.float32 or flat.shape[1] >= MANY_TOKENS or inputs.requires_grad:
        return torch.nn.functional.linear(inputs, weight.float(), bias)
    step = max(1, BLOCK_WEIGHTS // weight.shape[1])
    buffer = torch.empty(min(step, weight.shape[0]), weight.shape[1], device=weight.device)
    made = torch.empty(weight.shape[0], flat.shape[1], device=flat.device)  # transposed: a block's output is contiguous
    for start in range(0, weight.shape[0], step):
        block = weight[start : start + step]
        torch.mm(buffer[: block.shape[0]].copy_(block), flat, out=made[start : start + step])
    output = made.T.reshape(*inputs.shape[:-1], weight.shape[0])
    return output if bias is None else output + bias
