"""What a model family says about itself: how to read its config, where its tensors are, what its checkpoint adds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import PlanInfeasible
from toolkit.specs import ModelSpec

#: TensorRT-LLM's ExpertScaleNormalizationMode.
NO_NORMALIZATION, RENORMALIZE = 0, 1
FUSED_ACTIVATIONS = {"silu": "swiglu"}


@dataclass(frozen=True, kw_only=True)
class TensorNames:
    """Hugging Face names of a decoder's tensors, below the layer, by the parts of specs/parts.py.

    Parts with one and the same name are consecutive rows of that tensor, in the order of this table (Phi-3's qkv_proj).
    `{expert}` stands for an expert's number.
    """

    embedding: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    lm_head: str = "lm_head"
    layer: str = "model.layers.{index}."
    linears: Mapping[str, str] = field(default_factory=dict)
    norms: Mapping[str, str] = field(default_factory=dict)
    expert: Mapping[str, str] = field(default_factory=dict)  # fc, gate, proj → name of expert {expert}
    shared_expert: Mapping[str, str] = field(default_factory=dict)  # fc, gate, proj
    router: str = ""
    shared_expert_gate: str = ""


def no_fields(spec: ModelSpec) -> dict[str, Any]:  # noqa: ARG001 - one signature for all
    """Add nothing."""
    return {}


@dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """One supported family; `describe` turns a config.json into a ModelSpec."""

    name: str
    title: str
    architectures: tuple[str, ...]
    describe: Callable[[Mapping[str, Any]], ModelSpec]
    tensors: TensorNames
    decoder_type: str = "llama"  # ModelOpt's name for it
    #: What a TensorRT-LLM config.json has beyond the common fields, or has otherwise.
    config_fields: Callable[[ModelSpec], dict[str, Any]] = no_fields
    notes: str = ""


@dataclass(frozen=True, kw_only=True)
class PlannedFamily:
    """A family whose shape is known and whose weights trtk does not convert."""

    name: str
    title: str
    architectures: tuple[str, ...]
    describe: Callable[[Mapping[str, Any]], ModelSpec]
    notes: str = ""


ATTENTION = {
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.dense": "self_attn.o_proj",
}
# The activated branch is `fc` in TensorRT-LLM: proj(act(fc(x)) * gate(x)).
GATED_MLP = {"fc": "mlp.gate_proj", "gate": "mlp.up_proj", "proj": "mlp.down_proj"}
NORMS = {"input_layernorm": "input_layernorm", "post_layernorm": "post_attention_layernorm"}
QK_NORMS = {"attention.q_layernorm": "self_attn.q_norm", "attention.k_layernorm": "self_attn.k_norm"}

SANDWICH_NORMS = {
    "pre_feedforward_layernorm": "pre_feedforward_layernorm",
    "post_feedforward_layernorm": "post_feedforward_layernorm",
}

GATED_DECODER = TensorNames(
    linears={**ATTENTION, **{f"mlp.{part}": name for part, name in GATED_MLP.items()}},
    norms=NORMS,
)
#: Qwen's mixtures: experts beside the names of an ordinary MLP, which some layers may keep.
GATED_EXPERTS = dataclasses.replace(
    GATED_DECODER,
    expert={part: f"mlp.experts.{{expert}}.{name.removeprefix('mlp.')}" for part, name in GATED_MLP.items()},
    router="mlp.gate",
)


def moe_fields(spec: ModelSpec) -> dict[str, Any]:
    """Return what TensorRT-LLM wants to know of a mixture; raises PlanInfeasible when its classes cannot hold it."""
    assert spec.moe, "only families with experts ask"
    if spec.moe.dense_layers:
        raise PlanInfeasible(
            f"Layers {', '.join(map(str, spec.moe.dense_layers))} have an ordinary MLP; TensorRT-LLM's "
            f"{spec.architecture} takes a mixture of experts in every layer.",
            hint="Try --format hf.",
        )
    return {
        "hidden_act": fused_activation(spec),
        "moe": {
            "num_experts": spec.moe.num_experts,
            "top_k": spec.moe.top_k,
            "normalization_mode": RENORMALIZE if spec.moe.is_topk_normalized else NO_NORMALIZATION,
        },
    }


def fused_activation(spec: ModelSpec) -> str:
    """Return TensorRT-LLM's name of the activation of a module that holds gate and up."""
    return FUSED_ACTIVATIONS.get(spec.activation, spec.activation)
