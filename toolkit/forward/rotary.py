"""Rotary position embeddings on tensors: tables of cosines and sines, and the turn itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.rope import inverse_frequencies
from toolkit.specs import ModelSpec

if TYPE_CHECKING:
    import torch


class Rotary:
    """Tables for positions below max_length; sliding layers may have their own base."""

    def __init__(self, spec: ModelSpec, *, max_length: int, device: str) -> None:
        dim = spec.rotary_dim or spec.head_dim
        self._dim = dim
        self._global = _tables(inverse_frequencies(dim, spec.rope_theta, spec.rope_scaling), max_length, device)
        self._local = self._global
        if spec.rope_local_theta:
            self._local = _tables(inverse_frequencies(dim, spec.rope_local_theta, None), max_length, device)

    def turned(self, heads: torch.Tensor, start: int, *, is_local: bool) -> torch.Tensor:
        """Return heads [batch, heads, length, head_dim] turned by their positions, start first."""
        import torch

        cos, sin = (table[start : start + heads.shape[2]] for table in (self._local if is_local else self._global))
        turning, rest = heads[..., : self._dim], heads[..., self._dim :]
        first, second = turning.chunk(2, dim=-1)
        turning = turning * cos + torch.cat((-second, first), dim=-1) * sin
        return torch.cat((turning, rest), dim=-1) if rest.shape[-1] else turning


def _tables(frequencies: list[float], length: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    angles = torch.outer(torch.arange(length).float(), torch.tensor(frequencies)).to(device)
    both = torch.cat((angles, angles), dim=-1)
    return both.cos(), both.sin()
