"""Phi-3, Phi-3.5 and Phi-4 mini: fused q/k/v and gate/up, LongRoPE, partly rotated heads (Phi-4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toolkit.models.config import decoder_spec
from toolkit.models.family import NORMS, ModelFamily, TensorNames, fused_activation
from toolkit.specs import ModelSpec

#: What transformers takes where config.json is silent.
DEFAULTS = {"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096}


def describe(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a Phi3ForCausalLM."""
    return dataclasses.replace(
        decoder_spec({**DEFAULTS, **config}, family="phi3"),
        has_qkv_bias=False,
        has_output_bias=False,
        has_mlp_bias=False,
        is_mlp_fused=True,
    )


def config_fields(spec: ModelSpec) -> dict[str, Any]:
    """Return what TensorRT-LLM's Phi3Config wants to know; LongRoPE has fields of its own instead of a scaling."""
    fields: dict[str, Any] = {
        "hidden_act": fused_activation(spec),
        "rotary_pct": (spec.rotary_dim or spec.head_dim) / spec.head_dim,
        "tie_word_embeddings": spec.is_tied,
    }
    scaling = spec.rope_scaling
    if scaling is not None and scaling["rope_type"] == "longrope":
        fields |= {
            "position_embedding_type": "long_rope",
            "rotary_scaling": None,
            "original_max_position_embeddings": scaling["original_max_position_embeddings"],
            "longrope_scaling_short_factors": list(scaling["short_factor"]),
            "longrope_scaling_long_factors": list(scaling["long_factor"]),
        }
    return fields


FAMILY = ModelFamily(
    name="phi3",
    title="Phi-3 mini and medium, Phi-3.5 mini, Phi-4, Phi-4 mini",
    architectures=("Phi3ForCausalLM",),
    describe=describe,
    tensors=TensorNames(
        linears={
            "attention.q": "self_attn.qkv_proj",
            "attention.k": "self_attn.qkv_proj",
            "attention.v": "self_attn.qkv_proj",
            "attention.dense": "self_attn.o_proj",
            "mlp.fc": "mlp.gate_up_proj",
            "mlp.gate": "mlp.gate_up_proj",
            "mlp.proj": "mlp.down_proj",
        },
        norms=NORMS,
    ),
    decoder_type="phi3",
    config_fields=config_fields,
    notes="LongRoPE, partial rotary",
)
