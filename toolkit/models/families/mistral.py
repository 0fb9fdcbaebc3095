"""Mistral 7B and Nemo: Llama's tensors, a sliding window in v0.1, head_dim of its own in Nemo."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toolkit.models.config import decoder_spec
from toolkit.models.family import GATED_DECODER, ModelFamily
from toolkit.specs import ModelSpec


def describe(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a MistralForCausalLM, which never has biases."""
    spec = decoder_spec(config, family="mistral")
    return dataclasses.replace(spec, has_qkv_bias=False, has_output_bias=False, has_mlp_bias=False)


FAMILY = ModelFamily(
    name="mistral",
    title="Mistral 7B v0.1-v0.3, Mistral Nemo",
    architectures=("MistralForCausalLM",),
    describe=describe,
    tensors=GATED_DECODER,
    notes="sliding window (v0.1)",
)
