"""Qwen3 mixtures (30B-A3B, 235B-A22B): Qwen3's attention and experts, none of them shared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toolkit.models.config import decoder_spec, experts_of, switched_window
from toolkit.models.family import GATED_EXPERTS, NORMS, QK_NORMS, ModelFamily, moe_fields
from toolkit.specs import ModelSpec

#: What transformers takes where config.json is silent.
DEFAULTS = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}


def describe(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a Qwen3MoeForCausalLM; every layer slides where a window is on."""
    config = switched_window({**DEFAULTS, **config})
    experts = experts_of(config, count=_count_field(config), inner="moe_intermediate_size")
    return dataclasses.replace(
        decoder_spec(config, family="qwen3_moe"),
        has_mlp_bias=False,
        has_qk_norm=True,
        moe=dataclasses.replace(experts, shared_intermediate_size=None),
    )


def _count_field(config: Mapping[str, Any]) -> str:
    """Return how config.json spells the number of experts; transformers 5 knows both."""
    return "num_local_experts" if "num_local_experts" in config else "num_experts"


def config_fields(spec: ModelSpec) -> dict[str, Any]:
    """Return what TensorRT-LLM's QWenConfig wants to know; qwen_type is what switches the q and k norms on."""
    assert spec.moe, "describe says so"
    return {
        **moe_fields(spec),
        "qwen_type": "qwen3_moe",
        "seq_length": 8192,
        "use_logn_attn": False,
        "moe_intermediate_size": spec.moe.intermediate_size,
        "moe_shared_expert_intermediate_size": 0,
    }


FAMILY = ModelFamily(
    name="qwen3_moe",
    title="Qwen3-30B-A3B, Qwen3-235B-A22B",
    architectures=("Qwen3MoeForCausalLM",),
    describe=describe,
    tensors=dataclasses.replace(GATED_EXPERTS, norms={**NORMS, **QK_NORMS}),
    decoder_type="qwen",
    config_fields=config_fields,
    notes="mixture of experts, q and k norms",
)
