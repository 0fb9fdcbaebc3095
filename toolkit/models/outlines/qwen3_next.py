"""Qwen3-Next: three layers of linear attention for one of full attention, and many small experts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toolkit.models.config import count_of, decoder_spec, experts_of
from toolkit.models.family import PlannedFamily
from toolkit.specs import HybridModelSpec, ModelSpec

LINEAR = "linear_attention"
#: What transformers takes where config.json is silent.
FULL_EVERY = 4


def describe(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a Qwen3-Next; its layers for drafts are not counted."""
    heads = ("linear_num_key_heads", "linear_num_value_heads")
    dims = ("linear_key_head_dim", "linear_value_head_dim", "linear_conv_kernel_dim")
    key_heads, value_heads, key_dim, value_dim, width = (count_of(config, name) for name in (*heads, *dims))
    decoder = decoder_spec({**config, "sliding_window": None}, family="qwen3_next")
    fields = {field.name: getattr(decoder, field.name) for field in dataclasses.fields(decoder)}
    fields |= {
        "has_qk_norm": True,
        "moe": experts_of(config, count="num_experts", inner="moe_intermediate_size"),
    }
    return HybridModelSpec(
        **fields,
        recurrent_layers=_recurrent_layers(config),
        key_heads=key_heads,
        value_heads=value_heads,
        key_dim=key_dim,
        state_value_dim=value_dim,
        conv_width=width,
    )


def _recurrent_layers(config: Mapping[str, Any]) -> tuple[int, ...]:
    every = int(config.get("full_attention_interval") or FULL_EVERY)
    named = config.get("layer_types")
    if named:
        return tuple(layer for layer, kind in enumerate(named) if kind == LINEAR)
    return tuple(layer for layer in range(int(config["num_hidden_layers"])) if (layer + 1) % every)


FAMILY = PlannedFamily(
    name="qwen3_next",
    title="Qwen3-Next-80B-A3B",
    architectures=("Qwen3NextForCausalLM",),
    describe=describe,
    notes="linear attention in three layers of four; planned, not converted",
)
