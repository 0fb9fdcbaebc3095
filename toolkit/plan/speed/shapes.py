"""What one card of a server has to move and to multiply, for each step, sequence and token; counted, not timed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from toolkit.plan import kv_cache
from toolkit.plan.kv_cache import CachedLayers
from toolkit.plan.tensors import FLOAT_BYTES
from toolkit.specs import HybridModelSpec, LatentModelSpec, ModelSpec, QuantRecipe, ServerSetup, Sharding, parts

SCALE_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The amounts of one rank of one pipeline stage. Parameters are of linears; a token passes all dense ones."""

    layers: int
    hidden: int
    vocab: int
    tp: int
    pp: int
    dense_parameters: float
    expert_parameters: float  # of one expert, in all layers of the stage
    experts: int  # held by this rank; 0: no mixture
    expert_rows: float  # of a token that are gathered for its experts and scattered again, in all layers of the stage
    top_k: float  # of those, chosen for a token, mean
    weight_bytes: float  # of a parameter, scales included
    head_parameters: float
    pair_flops: float  # of one token that looks at one other
    cached: tuple[CachedLayers, ...]
    kv_elements: float  # of one token that are multiplied one by one: no two query heads share a key
    latent_flops: float = 0.0  # of one sequence's next token and one cached one: every head multiplies the one vector

    def distinct_experts(self, tokens: float) -> float:
        """Return how many of the rank's experts are expected to be needed by TOKENS that choose freely."""
        if not self.experts:
            return 0.0
        missed: float = (1.0 - min(1.0, self.top_k / self.experts)) ** max(tokens, 1.0)
        return self.experts * (1.0 - missed)

    def read_bytes(self, context: float) -> float:
        """Return the bytes of keys and values that a sequence of CONTEXT tokens reads for its next one."""
        return sum(
            group.layers * (group.bytes_per_token * min(context, group.window or context) + group.state_bytes)
            for group in self.cached
        )

    def prompt_pairs(self, tokens: float, *, known: float = 0.0) -> float:
        """Return the pairs that TOKENS new tokens look at behind KNOWN cached ones, layers' windows respected."""
        total = 0.0
        for group in self.cached:
            if group.bytes_per_token == 0:
                continue
            window = group.window or math.inf
            inside = min(tokens + known, window)
            total += group.layers * (tokens * inside - max(0.0, inside - known) ** 2 / 2)
        return total

    @property
    def head_bytes(self) -> float:
        """Bytes of the rank's share of the head, which stays in 16 bits."""
        return FLOAT_BYTES * self.head_parameters

    @property
    def token_flops(self) -> float:
        """Operations of one token in the dense linears."""
        return 2.0 * self.dense_parameters

    @property
    def expert_flops(self) -> float:
        """Operations of one token in the experts that were chosen for it."""
        return 2.0 * self.top_k * self.expert_parameters


def shape_of(setup: ServerSetup) -> Shape:
    """Return the amounts of the fullest rank."""
    model, limits = setup.model, setup.limits
    sharding = Sharding(tp=limits.tp, pp=limits.pp, ep=limits.ep)
    layers = math.ceil(model.num_layers / limits.pp)
    queries, keys = model.num_heads * model.head_dim, max(1, model.num_kv_heads // limits.tp) * model.head_dim
    states = sum(model.is_recurrent(layer) for layer in range(model.num_layers)) / model.num_layers
    attention = (1 - states) * _attention_parameters(model, limits.tp)
    if states:
        attention += states * _attention_parameters(model, limits.tp, is_recurrent=True)
    mixtures = sum(model.is_moe_layer(layer) for layer in range(model.num_layers)) / model.num_layers * layers
    mlp = 3 * model.hidden_size * model.intermediate_size / limits.tp
    dense = layers * attention + (layers - mixtures) * mlp
    if model.moe and model.moe.shared_intermediate_size:
        dense += mixtures * 3 * model.hidden_size * model.moe.shared_intermediate_size / limits.tp
    expert, held, chosen = _experts(model, limits.tp, limits.ep)
    is_alone = model.num_heads == model.num_kv_heads and not isinstance(model, LatentModelSpec)
    return Shape(
        layers=layers,
        hidden=model.hidden_size,
        vocab=model.vocab_size,
        tp=limits.tp,
        pp=limits.pp,
        dense_parameters=dense,
        expert_parameters=mixtures * expert,
        experts=held,
        expert_rows=mixtures * chosen,
        top_k=chosen,
        weight_bytes=_weight_bytes(setup.recipe),
        head_parameters=model.vocab_size * model.hidden_size / limits.tp,
        pair_flops=2.0 * (queries + model.num_heads * model.value_dim) / limits.tp,
        cached=kv_cache.of_model(model, kv_bytes=setup.kv_element_bytes, sharding=sharding),
        kv_elements=2.0 * layers * keys if is_alone else 0.0,
        latent_flops=layers * _latent_flops(model) / limits.tp if isinstance(model, LatentModelSpec) else 0.0,
    )


def _attention_parameters(model: ModelSpec, tp: int, *, is_recurrent: bool = False) -> float:
    """Return the parameters of a layer's attention on one rank."""
    if isinstance(model, (LatentModelSpec, HybridModelSpec)):
        linears = parts.attention(model, is_recurrent=is_recurrent).items()
        return sum(rows * width / (1 if name.endswith("_a") else tp) for name, (rows, width) in linears)
    keys = max(1, model.num_kv_heads // tp) * model.head_dim
    return model.hidden_size * (2 * model.num_heads * model.head_dim / tp + 2 * keys)


def _latent_flops(model: LatentModelSpec) -> float:
    """Return what all heads do with one cached vector: scores over all of it, values over its compressed part."""
    return 2.0 * model.num_heads * (model.latent_dim + model.kv_lora_rank)


def _experts(model: ModelSpec, tp: int, ep: int) -> tuple[float, int, float]:
    """Return the parameters of an expert that a rank holds, its experts, and how many of them a token takes."""
    if model.moe is None:
        return 0.0, 0, 0.0
    each = 3.0 * model.hidden_size * model.moe.intermediate_size * ep / tp
    return each, model.moe.num_experts // ep, model.moe.top_k / ep


def _weight_bytes(recipe: QuantRecipe) -> float:
    group = recipe.default_group_size
    return recipe.weight_bits / 8 + (SCALE_BYTES / group if group else 0.0)
