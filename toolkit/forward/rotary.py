"""Rotary position embeddings on tensors: tables of cosines and sines, and the turn itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.rope import rotary_of
from toolkit.specs import ModelSpec

if TYPE_CHECKING:
    import torch


class Rotary:
    """Tables for text of max_length tokens; sliding layers may have their own base."""

    def __init__(self, spec: ModelSpec, *, max_length: int, device: str) -> None:
        self._dim = spec.rotary_dim or spec.head_dim
        self._global, self._local = (
            _tables(*rotary_of(spec, length=max_length, is_local=is_local), length=max_length, device=device)
            for is_local in (False, True)
        )

    def turned(self, heads: torch.Tensor, start: int, *, is_local: bool) -> torch.Tensor:
        """Return heads [batch, heads, length, head_dim] turned by their positions, start first."""
        import torch

        cos, sin = (table[start : start + heads.shape[2]] for table in (self._local if is_local else self._global))
        turning, rest = heads[..., : self._dim], heads[..., self._dim :]
        first, second = turning.chunk(2, dim=-1)
        half = self._dim // 2
        turned = turning * cos
        turned[..., :half].addcmul_(second, sin[:, :half], value=-1)
        turned[..., half:].addcmul_(first, sin[:, half:])
        return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


def _tables(frequencies: list[float], factor: float, *, length: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    angles = torch.outer(torch.arange(length).float(), torch.tensor(frequencies)).to(device)
    both = torch.cat((angles, angles), dim=-1)
    return both.cos() * factor, both.sin() * factor
