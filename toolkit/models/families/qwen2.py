"""Qwen2 and Qwen2.5: Llama's tensors with biases on q, k and v."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toolkit.models.config import decoder_spec, full_layers, switched_window
from toolkit.models.family import GATED_DECODER, ModelFamily
from toolkit.specs import ModelSpec


def describe(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a Qwen2ForCausalLM; only layers from max_window_layers on slide, where a window is on."""
    config = switched_window({"max_window_layers": 28, **config})
    return dataclasses.replace(
        decoder_spec(config, family="qwen2"),
        full_attention_layers=full_layers(config, lambda index: index < config["max_window_layers"]),
        has_qkv_bias=True,
        has_output_bias=False,
        has_mlp_bias=False,
    )


def config_fields(spec: ModelSpec) -> dict[str, Any]:  # noqa: ARG001 - one signature for all
    """Return what TensorRT-LLM's QWenConfig wants to know."""
    return {"qwen_type": "qwen2", "seq_length": 8192, "use_logn_attn": False}


FAMILY = ModelFamily(
    name="qwen2",
    title="Qwen2, Qwen2.5, QwQ",
    architectures=("Qwen2ForCausalLM",),
    describe=describe,
    tensors=GATED_DECODER,
    decoder_type="qwen",
    config_fields=config_fields,
    notes="q, k, v biases",
)
