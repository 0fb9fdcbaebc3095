"""Integers of 2, 4 or 8 bits that quantizers pack into int32 words, and the float weights they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.errors import BuildError

if TYPE_CHECKING:
    import torch

    from toolkit.checkpoint.shards import Shards


def unpacked(words: torch.Tensor, bits: int = 4) -> torch.Tensor:
    """Return uint8 [..., M * 32 / bits] of int32 [..., M] words, lowest bits first."""
    import torch

    plain = words.contiguous().view(torch.uint8)  # little-endian, as safetensors is
    if bits == 8:
        return plain
    pieces = [(plain >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return torch.stack(pieces, dim=-1).flatten(-2)


def is_each(words: torch.Tensor, value: int) -> bool:
    """Return whether every 4-bit integer of int32 words is VALUE."""
    import torch

    return bool((words.contiguous().view(torch.uint8) == value * 0x11).all())


def centred(integers: torch.Tensor, middle: int) -> torch.Tensor:
    """Return int8 q - middle of uint8 integers below 2 * middle, in place of them."""
    import torch

    return integers.view(torch.int8).sub_(middle)


def dequantized(integers: torch.Tensor, zeros: torch.Tensor | int, scales: torch.Tensor) -> torch.Tensor:
    """Return (q - z) * s as float32 [N, K], for integers [N, K], zeros and scales [N, K/g]."""
    grouped = integers.float().reshape(*scales.shape, -1)
    offsets = zeros if isinstance(zeros, int) else zeros.float().unsqueeze(-1)
    return (grouped - offsets).mul_(scales.float().unsqueeze(-1)).reshape(integers.shape)


def group_size(shards: Shards, name: str, *, inputs: int, groups: int, said: int) -> int:
    """Return how many inputs share a scale of the tensor NAME; raises BuildError unless it is what the config says."""
    size = inputs if said <= 0 else said
    if groups * size != inputs:
        raise BuildError(
            f"{name} in {shards.folder} has {groups} groups for {inputs} inputs, "
            f"but quantization_config says groups of {size}.",
            hint="config.json and the weights are of different models.",
        )
    return size


def need_ordered(shards: Shards, name: str, *, size: int) -> None:
    """Raise BuildError when a group index is not k // size: act-order, whose groups are no runs of columns."""
    import torch

    if name not in shards:
        return
    index = shards.integers(name)
    if not torch.equal(index.long(), torch.arange(index.numel()) // size):
        raise BuildError(
            f"{name} in {shards.folder} is not in order: the model was quantized with act-order, "
            "and TensorRT-LLM's groups are runs of columns.",
            hint="Give a checkpoint made with desc_act=False, or the original 16-bit weights.",
        )
