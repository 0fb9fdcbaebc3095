"""The text model of Gemma 3 4B, 12B and 27B, whose folder also holds a vision tower, which is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toolkit.models.family import GATED_DECODER, NORMS, QK_NORMS, SANDWICH_NORMS, ModelFamily
from toolkit.models.gemma import gemma3_fields, gemma3_spec
from toolkit.specs import ModelSpec

#: transformers' Gemma3TextConfig, of which the folder's text_config says only what differs.
TEXT_DEFAULTS = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
}
SHARED = ("architectures", "eos_token_id", "bos_token_id", "pad_token_id", "torch_dtype", "dtype")


def describe(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a Gemma3ForConditionalGeneration's language model."""
    shared = {name: config[name] for name in SHARED if name in config}
    spec = gemma3_spec({**TEXT_DEFAULTS, **(config.get("text_config") or {}), **shared})
    return dataclasses.replace(spec, is_text_part=True)


def config_fields(spec: ModelSpec) -> dict[str, Any]:
    """Return Gemma 3's fields: TensorRT-LLM knows the language model alone."""
    return {**gemma3_fields(spec), "architecture": "Gemma3ForCausalLM"}


FAMILY = ModelFamily(
    name="gemma3_multimodal",
    title="Gemma 3 4B, 12B, 27B (their text model)",
    architectures=("Gemma3ForConditionalGeneration",),
    describe=describe,
    tensors=dataclasses.replace(
        GATED_DECODER,
        embedding="language_model.model.embed_tokens",
        final_norm="language_model.model.norm",
        lm_head="language_model.lm_head",
        layer="language_model.model.layers.{index}.",
        norms={**NORMS, **SANDWICH_NORMS, **QK_NORMS},
    ),
    decoder_type="gemma3",
    config_fields=config_fields,
    notes="as gemma3; images are not taken",
)
