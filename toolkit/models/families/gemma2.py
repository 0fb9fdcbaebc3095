"""Gemma 2: Gemma with norms behind attention and MLP too, softcaps, and a window in every other layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toolkit.models.config import full_layers
from toolkit.models.family import GATED_DECODER, NORMS, SANDWICH_NORMS, ModelFamily
from toolkit.models.gemma import gemma_fields, gemma_spec, query_scalar
from toolkit.specs import ModelSpec

#: What transformers takes where config.json is silent.
DEFAULTS = {
    "sliding_window": 4096,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}


def describe(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a Gemma2ForCausalLM; even layers slide."""
    config = {**DEFAULTS, **config}
    return dataclasses.replace(
        gemma_spec(config, family="gemma2"),
        has_sandwich_norms=True,
        attention_scale=float(config["query_pre_attn_scalar"]) ** -0.5,
        attention_softcap=config["attn_logit_softcapping"],
        logit_softcap=config["final_logit_softcapping"],
        full_attention_layers=full_layers(config, lambda index: index % 2 == 1),
    )


def config_fields(spec: ModelSpec) -> dict[str, Any]:
    """Return what TensorRT-LLM's GemmaConfig wants to know of Gemma 2."""
    return {
        **gemma_fields(spec),
        "inter_layernorms": True,
        "query_pre_attn_scalar": query_scalar(spec),
        "attn_logit_softcapping": spec.attention_softcap,
        "final_logit_softcapping": spec.logit_softcap,
    }


FAMILY = ModelFamily(
    name="gemma2",
    title="Gemma 2 2B, 9B, 27B",
    architectures=("Gemma2ForCausalLM",),
    describe=describe,
    tensors=dataclasses.replace(GATED_DECODER, norms={**NORMS, **SANDWICH_NORMS}),
    decoder_type="gemma2",
    config_fields=config_fields,
    notes="softcaps, sandwich norms, a window in every other layer",
)
