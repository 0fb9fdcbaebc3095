"""Llama 1, 2, 3.x and what shares its shape (SmolLM2, TinyLlama, Yi, ...)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.models.config import decoder_spec
from toolkit.models.family import GATED_DECODER, ModelFamily
from toolkit.specs import ModelSpec


def describe(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a LlamaForCausalLM."""
    return decoder_spec(config, family="llama")


FAMILY = ModelFamily(
    name="llama",
    title="Llama 1, 2, 3, 3.1-3.3, SmolLM2",
    architectures=("LlamaForCausalLM",),
    describe=describe,
    tensors=GATED_DECODER,
    notes="rope scaling: linear, dynamic, llama3, yarn, longrope",
)
