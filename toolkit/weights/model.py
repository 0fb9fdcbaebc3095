"""Where a model comes from, piece by piece: shards, a checkpoint, or either in float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from toolkit.weights.layer import Layer

if TYPE_CHECKING:
    import torch


class Weights(Protocol):
    """What runs a model asks of it; nothing is kept between calls."""

    def layer(self, index: int) -> Layer:
        """Return one layer."""

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return hidden states of ids."""

    def final_norm(self) -> torch.Tensor:
        """Return the final norm's weight."""

    def head(self) -> torch.Tensor:
        """Return the output matrix [vocab, hidden]."""
