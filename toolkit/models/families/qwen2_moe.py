"""Qwen1.5-MoE and Qwen2-57B-A14B: Qwen2's attention, experts and one more that every token passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toolkit.models.config import decoder_spec, experts_of, full_layers, switched_window
from toolkit.models.family import GATED_EXPERTS, GATED_MLP, ModelFamily, moe_fields
from toolkit.specs import ModelSpec

#: What transformers takes where config.json is silent.
DEFAULTS = {
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632,
    "max_window_layers": 28,
    "qkv_bias": True,
}


def describe(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a Qwen2MoeForCausalLM; every other layer below max_window_layers slides, if any does."""
    config = switched_window({**DEFAULTS, **config})
    return dataclasses.replace(
        decoder_spec(config, family="qwen2_moe"),
        full_attention_layers=full_layers(config, lambda index: index % 2 == 1 or index >= config["max_window_layers"]),
        has_qkv_bias=bool(config["qkv_bias"]),
        has_output_bias=False,
        has_mlp_bias=False,
        moe=experts_of(config, count="num_experts", inner="moe_intermediate_size"),
    )


def config_fields(spec: ModelSpec) -> dict[str, Any]:
    """Return what TensorRT-LLM's QWenConfig wants to know."""
    assert spec.moe, "describe says so"
    return {
        **moe_fields(spec),
        "qwen_type": "qwen2_moe",
        "seq_length": 8192,
        "use_logn_attn": False,
        "moe_intermediate_size": spec.moe.intermediate_size,
        "moe_shared_expert_intermediate_size": spec.moe.shared_intermediate_size,
    }


FAMILY = ModelFamily(
    name="qwen2_moe",
    title="Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B",
    architectures=("Qwen2MoeForCausalLM",),
    describe=describe,
    tensors=dataclasses.replace(
        GATED_EXPERTS,
        shared_expert={part: f"mlp.shared_expert.{name.removeprefix('mlp.')}" for part, name in GATED_MLP.items()},
        shared_expert_gate="mlp.shared_expert_gate",
    ),
    decoder_type="qwen",
    config_fields=config_fields,
    notes="mixture of experts with a shared one, q, k, v biases",
)
