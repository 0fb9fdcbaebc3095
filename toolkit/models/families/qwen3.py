"""Qwen3: Llama's tensors with norms on query and key heads, and a head_dim of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toolkit.models.config import decoder_spec, full_layers, switched_window
from toolkit.models.family import GATED_DECODER, NORMS, QK_NORMS, ModelFamily
from toolkit.specs import ModelSpec

#: What transformers takes where config.json is silent.
DEFAULTS = {"head_dim": 128, "max_window_layers": 28}


def describe(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a Qwen3ForCausalLM; only layers from max_window_layers on slide, where a window is on."""
    config = switched_window({**DEFAULTS, **config})
    return dataclasses.replace(
        decoder_spec(config, family="qwen3"),
        full_attention_layers=full_layers(config, lambda index: index < config["max_window_layers"]),
        has_mlp_bias=False,
        has_qk_norm=True,
    )


def config_fields(spec: ModelSpec) -> dict[str, Any]:  # noqa: ARG001 - one signature for all
    """Return what TensorRT-LLM's QWenConfig wants to know; qwen_type is what switches the q and k norms on."""
    return {"qwen_type": "qwen3", "seq_length": 8192, "use_logn_attn": False}


FAMILY = ModelFamily(
    name="qwen3",
    title="Qwen3 0.6B-32B",
    architectures=("Qwen3ForCausalLM",),
    describe=describe,
    tensors=dataclasses.replace(GATED_DECODER, norms={**NORMS, **QK_NORMS}),
    decoder_type="qwen",
    config_fields=config_fields,
    notes="q and k norms",
)
