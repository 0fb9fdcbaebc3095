"""One decoder layer in memory: its linears by part, its norms and other small tensors by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolkit.weights.linear import Linear

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Parts are named in specs/parts.py: `attention.q`, `mlp.fc`, `mlp.experts.3.proj`; K and N as in the model.

    `tensors` are float32: norms with the family's offset added (so that x * weight is meant), `mlp.router` [E, H],
    `mlp.shared_expert_gate` [1, H].
    """

    index: int
    linears: Mapping[str, Linear]
    tensors: Mapping[str, torch.Tensor]
    scalars: Mapping[str, float] = field(default_factory=dict)  # attention.k_scale, attention.v_scale of the KV cache

    def as_float32(self) -> Layer:
        """Return the layer with float weights as float32: for whoever runs it more than once."""
        kept = {
            name: dataclasses.replace(linear, weight=linear.weight.float()) if linear.algo is None else linear
            for name, linear in self.linears.items()
        }
        return dataclasses.replace(self, linears=kept)
