"""What the Gemma families share: +1 norms, embeddings scaled by sqrt(hidden), a tied head, Gemma 3's text model."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from typing import Any

from toolkit.errors import PlanInfeasible
from toolkit.models.config import decoder_spec, full_layers, local_rope_theta
from toolkit.specs import ModelSpec

#: What transformers takes where config.json is silent.
DEFAULTS = {"head_dim": 256, "tie_word_embeddings": True, "max_position_embeddings": 8192}
GEMMA3_DEFAULTS = {
    "max_position_embeddings": 131072,
    "query_pre_attn_scalar": 256,
    "rope_theta": 1e6,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
}
GEMMA3_LOCAL_THETA = 10000.0


def gemma_spec(config: Mapping[str, Any], *, family: str) -> ModelSpec:
    """Return the spec of any Gemma's decoder; raises PlanInfeasible for one that also looks ahead."""
    config = {**DEFAULTS, **config}
    if config.get("use_bidirectional_attention"):
        raise PlanInfeasible("config.json asks for use_bidirectional_attention: that is an encoder, not a decoder.")
    spec = decoder_spec(config, family=family)
    activation = str(config.get("hidden_activation") or config.get("hidden_act") or "gelu_pytorch_tanh")
    return dataclasses.replace(
        spec,
        # Gemma's first release said gelu and meant its tanh form (huggingface/transformers#29402).
        activation="gelu_pytorch_tanh" if activation == "gelu" else activation,
        norm_offset=1.0,
        embedding_scale=_rounded(spec.hidden_size**0.5, spec.dtype),
        has_mlp_bias=False,
    )


def gemma3_spec(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of Gemma 3's text model; every sliding_window_pattern-th layer attends to everything."""
    config = {**GEMMA3_DEFAULTS, **config}
    pattern = int(config["sliding_window_pattern"])
    return dataclasses.replace(
        gemma_spec(config, family="gemma3"),
        has_sandwich_norms=True,
        has_qk_norm=True,
        attention_scale=float(config["query_pre_attn_scalar"]) ** -0.5,
        attention_softcap=config.get("attn_logit_softcapping"),
        logit_softcap=config.get("final_logit_softcapping"),
        rope_local_theta=local_rope_theta(config, GEMMA3_LOCAL_THETA),
        full_attention_layers=full_layers(config, lambda index: (index + 1) % pattern == 0),
    )


def _rounded(value: float, dtype: str) -> float:
    """Return a number as the model's dtype holds it: transformers multiplies embeddings in that dtype."""
    if dtype == "float16":
        return float(struct.unpack("<e", struct.pack("<e", value))[0])
    if dtype == "bfloat16":
        bits = int(struct.unpack("<I", struct.pack("<f", value))[0])
        bits += 0x7FFF + (bits >> 16 & 1)  # to nearest, ties to even
        return float(struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))[0])
    return value


def gemma_fields(spec: ModelSpec) -> dict[str, Any]:
    """Return what TensorRT-LLM's GemmaConfig wants to know of any Gemma."""
    if not spec.is_tied:
        raise PlanInfeasible(
            f"TensorRT-LLM's {spec.architecture} takes the embedding as its head; this model has its own head.",
            hint="Try --format hf.",
        )
    return {"share_embedding_table": True, "inter_layernorms": False}


def gemma3_fields(spec: ModelSpec) -> dict[str, Any]:
    """Return what TensorRT-LLM's GemmaConfig wants to know of Gemma 3: all five of its own fields switch it on."""
    return {
        **gemma_fields(spec),
        "inter_layernorms": True,
        "qk_layernorm": True,
        "query_pre_attn_scalar": query_scalar(spec),
        "final_logit_softcapping": spec.logit_softcap,
        "sliding_window": spec.sliding_window,
        "sliding_window_pattern": _pattern(spec),
        "rope_local_base_freq": spec.rope_local_theta,
    }


def query_scalar(spec: ModelSpec) -> float:
    """Return the number whose inverse square root scales the scores."""
    assert spec.attention_scale, "Gemma 2 and 3 always have it"
    return float(round(spec.attention_scale**-2, 6))


def _pattern(spec: ModelSpec) -> int:
    """Return the step between layers that attend to everything; raises PlanInfeasible when there is no one step."""
    full = spec.full_attention_layers or ()
    step = full[0] + 1 if full else spec.num_layers + 1
    if full != tuple(range(step - 1, spec.num_layers, step)):
        raise PlanInfeasible(
            f"Layers {', '.join(map(str, full))} attend to everything; TensorRT-LLM's {spec.architecture} takes every "
            "n-th layer.",
            hint="Try --format hf.",
        )
    return step
