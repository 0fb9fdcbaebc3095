"""Gemma 1: +1 norms, scaled embeddings, a head_dim of its own, a GELU gate, a tied head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.models.family import GATED_DECODER, ModelFamily
from toolkit.models.gemma import gemma_fields, gemma_spec
from toolkit.specs import ModelSpec


def describe(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a GemmaForCausalLM."""
    return gemma_spec(config, family="gemma")


FAMILY = ModelFamily(
    name="gemma",
    title="Gemma 2B, 7B, CodeGemma",
    architectures=("GemmaForCausalLM",),
    describe=describe,
    tensors=GATED_DECODER,
    decoder_type="gemma",
    config_fields=gemma_fields,
    notes="+1 norms, scaled embeddings",
)
