"""Bytes, counted: parameters, weights in a recipe's format, KV cache per token, what an engine needs besides."""

from __future__ import annotations

from toolkit.plan.groups import inputs_of_linears
from toolkit.specs import Limits, ModelSpec, QuantRecipe

GIB = 1 << 30
MIB = 1 << 20
#: TensorRT-LLM's activations are about this many times tokens x hidden x 2 bytes (measured for the Llama family, tp 1).
ACTIVATION_FACTOR = 11
MIN_ACTIVATION_BYTES = 70 * MIB
#: CUDA context and libraries of a serving process; between 0.3 and 0.6 GiB on the cards that were looked at.
RUNTIME_BYTES = 600 * MIB
FLOAT_BYTES = 2
SCALE_BYTES = 4


def linear_parameters(model: ModelSpec) -> int:
    """Return the weights of all decoder layers' linears: what a recipe quantizes."""
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    attention = model.hidden_size * (2 * queries + 2 * keys)
    return model.num_layers * (attention + 3 * model.hidden_size * model.intermediate_size)


def float_parameters(model: ModelSpec) -> int:
    """Return what stays in 16 bits: embedding, head and norms."""
    norms = (2 * model.num_layers + 1) * model.hidden_size
    return 2 * model.vocab_size * model.hidden_size + norms


def weights_bytes(model: ModelSpec, recipe: QuantRecipe, group_size: int | None) -> int:
    """Return the bytes of the weights in an engine, scales included; a tied head is shared."""
    parameters = linear_parameters(model)
    shared = model.vocab_size * model.hidden_size if model.is_tied else 0
    scales = SCALE_BYTES * parameters // group_size if group_size else 0
    return parameters * recipe.weight_bits // 8 + scales + FLOAT_BYTES * (float_parameters(model) - shared)


def checkpoint_bytes(model: ModelSpec, recipe: QuantRecipe, group_size: int | None) -> int:
    """Return about how much disk a checkpoint takes; weight-only int8 is stored as 16-bit floats."""
    stored_bits = 16 if recipe.quant_algo in {None, "W8A16"} else recipe.weight_bits
    parameters = linear_parameters(model)
    scales = SCALE_BYTES * parameters // group_size if group_size else 0
    prequant = FLOAT_BYTES * model.num_layers * sum(inputs_of_linears(model).values()) if group_size else 0
    return parameters * stored_bits // 8 + scales + prequant + FLOAT_BYTES * float_parameters(model)


def kv_bytes_per_token(model: ModelSpec, *, kv_bytes: int = FLOAT_BYTES) -> int:
    """Return the KV cache of one token: keys and values of every layer."""
    return 2 * model.num_layers * model.num_kv_heads * model.head_dim * kv_bytes


def activation_bytes(model: ModelSpec, limits: Limits) -> int:
    """Return the activation buffer of an engine built for LIMITS; linear in max_num_tokens."""
    tokens_bytes = limits.max_num_tokens * model.hidden_size * FLOAT_BYTES
    return max(MIN_ACTIVATION_BYTES, ACTIVATION_FACTOR * tokens_bytes)
