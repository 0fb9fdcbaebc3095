"""What a model family says about itself: how to read its config, and where its tensors go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.specs import ModelSpec


@dataclass(frozen=True, kw_only=True)
class TensorNames:
    """Hugging Face names of a decoder's tensors, keyed by their TensorRT-LLM modules.

    A linear that TensorRT-LLM fuses lists its parts in the order in which they are concatenated.
    """

    embedding: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    lm_head: str = "lm_head"
    layer: str = "model.layers.{index}."
    linears: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    norms: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """One supported family; `describe` turns a config.json into a ModelSpec."""

    name: str
    title: str
    architectures: tuple[str, ...]
    describe: Callable[[Mapping[str, Any]], ModelSpec]
    tensors: TensorNames
    notes: str = ""


GATED_DECODER = TensorNames(
    linears={
        "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attention.dense": ("self_attn.o_proj",),
        # The activated branch is `fc` in TensorRT-LLM: proj(act(fc(x)) * gate(x)).
        "mlp.fc": ("mlp.gate_proj",),
        "mlp.gate": ("mlp.up_proj",),
        "mlp.proj": ("mlp.down_proj",),
    },
    norms={"input_layernorm": "input_layernorm", "post_layernorm": "post_attention_layernorm"},
)
