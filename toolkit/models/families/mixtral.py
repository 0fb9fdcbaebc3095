"""Mixtral 8x7B and 8x22B: Mistral's attention, a mixture of experts in every layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toolkit.models.config import decoder_spec, experts_of
from toolkit.models.family import ATTENTION, NORMS, ModelFamily, TensorNames, moe_fields
from toolkit.specs import ModelSpec

#: What transformers takes where config.json is silent.
DEFAULTS = {"rope_theta": 1e6, "rms_norm_eps": 1e-5, "num_local_experts": 8, "num_experts_per_tok": 2}
EXPERT = "block_sparse_moe.experts.{expert}."


def describe(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a MixtralForCausalLM, whose router always normalises."""
    config = {**DEFAULTS, **config}
    experts = experts_of(config, count="num_local_experts", inner="intermediate_size")
    return dataclasses.replace(
        decoder_spec(config, family="mixtral"),
        has_qkv_bias=False,
        has_output_bias=False,
        has_mlp_bias=False,
        moe=dataclasses.replace(experts, is_topk_normalized=True),
    )


FAMILY = ModelFamily(
    name="mixtral",
    title="Mixtral 8x7B, 8x22B",
    architectures=("MixtralForCausalLM",),
    describe=describe,
    tensors=TensorNames(
        linears=ATTENTION,
        norms=NORMS,
        expert={"fc": f"{EXPERT}w1", "gate": f"{EXPERT}w3", "proj": f"{EXPERT}w2"},
        router="block_sparse_moe.gate",
    ),
    config_fields=moe_fields,
    notes="mixture of experts",
)
