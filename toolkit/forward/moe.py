"""A mixture of experts: each token passes the experts that the router picks, weighted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolkit.models.parts import EXPERT, SHARED_EXPERT
from toolkit.specs import ModelSpec
from toolkit.weights import Layer

if TYPE_CHECKING:
    import torch

    Tap = Callable[[str, torch.Tensor], None]
    #: (layer, prefix of the parts, inputs, tap) → outputs
    Gated = Callable[[Layer, str, torch.Tensor, Tap], torch.Tensor]


def mixture(spec: ModelSpec, layer: Layer, inputs: torch.Tensor, *, gated: Gated, tap: Tap) -> torch.Tensor:
    """Return the mixture's output for inputs [..., hidden]; experts are watched together, as mlp.fc and mlp.proj."""
    import torch

    assert spec.moe, "the caller checked"
    flat = inputs.reshape(-1, inputs.shape[-1])
    tap("mlp.fc", flat)
    chosen, shares = routed(spec, flat @ layer.tensors["mlp.router"].T)
    total = torch.zeros_like(flat)

    def watched(name: str, seen: torch.Tensor) -> None:
        if name.endswith(".proj"):
            tap("mlp.proj", seen)

    for expert in range(spec.moe.num_experts):
        tokens, slots = torch.where(chosen == expert)
        if len(tokens):
            made = gated(layer, EXPERT.format(expert=expert), flat[tokens], watched)
            total.index_add_(0, tokens, made * shares[tokens, slots, None])
    if spec.moe.shared_intermediate_size:
        shared = gated(layer, SHARED_EXPERT, flat, tap)
        total += torch.sigmoid(flat @ layer.tensors["mlp.shared_expert_gate"].T) * shared
    return total.view(inputs.shape)


def routed(spec: ModelSpec, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the experts of each token [tokens, top_k] and their shares, float32."""
    import torch

    assert spec.moe, "the caller checked"
    shares, chosen = torch.topk(torch.softmax(logits.float(), dim=-1), spec.moe.top_k, dim=-1)
    if spec.moe.is_topk_normalized:
        shares = shares / shares.sum(-1, keepdim=True)
    return chosen, shares
