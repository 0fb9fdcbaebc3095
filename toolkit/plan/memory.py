"""Bytes, counted: parameters, weights in a recipe's format, KV cache per token, what an engine needs besides."""

from __future__ import annotations

import math
from collections.abc import Iterator

from toolkit.specs import Limits, ModelSpec, QuantRecipe, Sharding, parts

GIB = 1 << 30
MIB = 1 << 20
#: TensorRT-LLM's activations are about this many times tokens x hidden x 2 bytes (measured for the Llama family, tp 1).
ACTIVATION_FACTOR = 11
MIN_ACTIVATION_BYTES = 70 * MIB
#: CUDA context and libraries of a serving process; between 0.3 and 0.6 GiB on the cards that were looked at.
RUNTIME_BYTES = 600 * MIB
FLOAT_BYTES = 2
SCALE_BYTES = 4
ROUTER_BYTES = 4


def linear_parameters(model: ModelSpec) -> int:
    """Return the weights of all decoder layers' linears, every expert's too: what a recipe quantizes."""
    return parts.parameters(model)


def router_parameters(model: ModelSpec) -> int:
    """Return the weights of the routers of a mixture of experts, which stay in 32 bits."""
    if model.moe is None:
        return 0
    return (model.num_layers - len(model.moe.dense_layers)) * model.moe.num_experts * model.hidden_size


def float_parameters(model: ModelSpec) -> int:
    """Return what stays in 16 bits: embedding, head, norms, biases and gates of shared experts."""
    layers = sum(_small_parameters(model, layer) for layer in range(model.num_layers))
    return 2 * model.vocab_size * model.hidden_size + model.hidden_size + layers


def _small_parameters(model: ModelSpec, layer: int) -> int:
    """Return a layer's norms, biases and the gate of its shared expert."""
    norms = (4 if model.has_sandwich_norms else 2) * model.hidden_size
    if model.has_qk_norm:
        norms += 2 * model.head_dim
    biased = {
        "attention": (("q", "k", "v") if model.has_qkv_bias else ()) + (("dense",) if model.has_output_bias else ()),
        "mlp": parts.MLP if model.has_mlp_bias else (),
    }
    shapes = parts.shapes(model, layer)
    biases = sum(shapes[f"{prefix}.{name}"][0] for prefix, names in biased.items() for name in names)
    has_shared_gate = model.moe is not None and model.moe.shared_intermediate_size and model.is_moe_layer(layer)
    return norms + biases + (model.hidden_size if has_shared_gate else 0)


def total_parameters(model: ModelSpec) -> int:
    """Return all parameters, as model cards count them: a tied head once."""
    tied = model.vocab_size * model.hidden_size if model.is_tied else 0
    return linear_parameters(model) + router_parameters(model) + float_parameters(model) - tied


def weights_bytes(
    model: ModelSpec, recipe: QuantRecipe, group_size: int | None, *, sharding: Sharding | None = None
) -> int:
    """Return the bytes of the weights in the fullest rank's engine, scales included; a tied head is shared.

    Layers are divided among the stages, and linears, experts, embedding and head among the ranks of one; norms are not.
    """
    ranks = sharding or Sharding()
    table = model.vocab_size * model.hidden_size
    # One stage has the embedding and another the head, which then cannot be shared.
    tables = table if model.is_tied or ranks.pp > 1 else 2 * table
    layers = math.ceil(model.num_layers / ranks.pp) / model.num_layers
    parameters = math.ceil(linear_parameters(model) * layers / ranks.tp)
    scales = SCALE_BYTES * parameters // group_size if group_size else 0
    norms = math.ceil((float_parameters(model) - 2 * table) * layers)
    kept = FLOAT_BYTES * (tables // ranks.tp + norms) + math.ceil(ROUTER_BYTES * router_parameters(model) * layers)
    return parameters * recipe.weight_bits // 8 + scales + kept


def checkpoint_bytes(model: ModelSpec, recipe: QuantRecipe, group_size: int | None) -> int:
    """Return about how much disk a checkpoint takes; weight-only int8 is stored as 16-bit floats."""
    stored_bits = 16 if recipe.quant_algo in {None, "W8A16"} else recipe.weight_bits
    parameters = linear_parameters(model)
    scales = SCALE_BYTES * parameters // group_size if group_size else 0
    prequant = FLOAT_BYTES * sum(_inputs_of_modules(model)) if group_size else 0
    kept = FLOAT_BYTES * float_parameters(model) + ROUTER_BYTES * router_parameters(model)
    return parameters * stored_bits // 8 + scales + prequant + kept


def _inputs_of_modules(model: ModelSpec) -> Iterator[int]:
    """Yield K of every module of the checkpoint."""
    for layer in range(model.num_layers):
        shapes = parts.shapes(model, layer)
        for members in parts.modules(model, layer).values():
            yield shapes[members[0]][1]


def kv_bytes_per_token(model: ModelSpec, *, kv_bytes: int = FLOAT_BYTES, sharding: Sharding | None = None) -> int:
    """Return the KV cache of one token on the fullest rank: keys and values of its layers and heads."""
    ranks = sharding or Sharding()
    layers, heads = math.ceil(model.num_layers / ranks.pp), max(1, model.num_kv_heads // ranks.tp)
    return 2 * layers * heads * model.head_dim * kv_bytes


def activation_bytes(model: ModelSpec, limits: Limits) -> int:
    """Return the activation buffer of an engine built for LIMITS; linear in max_num_tokens."""
    tokens_bytes = limits.max_num_tokens * model.hidden_size * FLOAT_BYTES
    return max(MIN_ACTIVATION_BYTES, ACTIVATION_FACTOR * tokens_bytes)
