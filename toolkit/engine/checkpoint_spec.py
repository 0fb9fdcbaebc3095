"""A checkpoint's config.json → the model's shape: what TensorRT-LLM's own classes would make of the same fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from toolkit import rope
from toolkit.errors import PlanInfeasible
from toolkit.specs import ModelSpec, MoeSpec

Named = TypeVar("Named")


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What TensorRT-LLM's class of an architecture does that no field of config.json says."""

    has_sandwich_norms: bool = False
    has_qk_norm: bool = False
    is_embedding_scaled: bool = False  # by sqrt(hidden_size)
    slides_every_other_layer: bool = False


GEMMA_2 = Traits(has_sandwich_norms=True, is_embedding_scaled=True, slides_every_other_layer=True)
TRAITS = {
    "LlamaForCausalLM": Traits(),
    "MistralForCausalLM": Traits(),
    "MixtralForCausalLM": Traits(),
    "Qwen2ForCausalLM": Traits(),
    "Qwen2MoeForCausalLM": Traits(),
    "Qwen3ForCausalLM": Traits(has_qk_norm=True),
    "Qwen3MoeForCausalLM": Traits(has_qk_norm=True),
    "GemmaForCausalLM": Traits(is_embedding_scaled=True),
    "Gemma2ForCausalLM": GEMMA_2,
    "Gemma3ForCausalLM": Traits(has_sandwich_norms=True, has_qk_norm=True, is_embedding_scaled=True),
    "Phi3ForCausalLM": Traits(),
}
#: Fields that change the computation, and the value at which they change nothing.
NEUTRAL = {
    "residual_mlp": False,
    "use_logn_attn": False,
    "embedding_multiplier": 1.0,
    "attention_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "output_multiplier_scale": 1.0,
    "fc_after_embed": False,
    "use_input_layernorm_in_first_layer": True,
    "use_last_layernorm": True,
}
ROTARY_EMBEDDINGS = {"rope_gpt_neox": "halves", "long_rope": "halves"}
#: ExpertScaleNormalizationMode of TensorRT-LLM.
NO_NORMALIZATION, RENORMALIZE = 0, 1
#: TensorRT-LLM's names of activations → Hugging Face's; gated ones are named for the fused module.
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "swiglu": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_pytorch_tanh",
    "geglu": "gelu_pytorch_tanh",
}


def spec_of(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a checkpoint; raises PlanInfeasible for what the CPU engine would compute otherwise."""
    traits = _known(config, "architecture", TRAITS)
    _known(config, "position_embedding_type", ROTARY_EMBEDDINGS)
    _need_neutral(config)
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    head_dim = int(config.get("head_size") or hidden // heads)
    rotary_dim = int(config.get("rotary_embedding_dim") or head_dim * float(config.get("rotary_pct") or 1.0))
    scalar = config.get("query_pre_attn_scalar")
    return ModelSpec(
        family=str(config["architecture"]),
        architecture=str(config["architecture"]),
        vocab_size=int(config["vocab_size"]),
        hidden_size=hidden,
        num_layers=int(config["num_hidden_layers"]),
        num_heads=heads,
        num_kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        intermediate_size=int(config.get("intermediate_size") or 4 * hidden),
        activation=_known(config, "hidden_act", ACTIVATIONS),
        norm_eps=float(config.get("norm_epsilon", 1e-5)),
        rope_theta=float(config.get("rotary_base") or 10000.0),
        rope_scaling=_rope_scaling(config, rotary_dim),
        max_position_embeddings=int(config["max_position_embeddings"]),
        sliding_window=config.get("sliding_window"),
        has_qk_norm=traits.has_qk_norm,
        has_sandwich_norms=traits.has_sandwich_norms,
        embedding_scale=math.sqrt(hidden) if traits.is_embedding_scaled else 1.0,
        attention_scale=None if scalar is None else float(scalar) ** -0.5,
        attention_softcap=config.get("attn_logit_softcapping"),
        logit_softcap=config.get("final_logit_softcapping"),
        rotary_dim=rotary_dim,
        rope_local_theta=config.get("rope_local_base_freq"),
        full_attention_layers=_full_attention_layers(config, traits),
        moe=_mixture(config),
        dtype=str(config["dtype"]),
    )


def _known(config: Mapping[str, Any], field: str, table: Mapping[str, Named]) -> Named:
    """Return what a field's value means, or refuse a value that has no meaning here."""
    value = str(config.get(field))
    if value not in table:
        raise PlanInfeasible(f"The CPU engine does not know the {field} {value!r}; it knows {', '.join(table)}.")
    return table[value]


def _need_neutral(config: Mapping[str, Any]) -> None:
    for name, neutral in NEUTRAL.items():
        value = config.get(name, neutral)
        if value is not None and value != neutral:
            raise PlanInfeasible(f"The CPU engine does not compute {name} = {value!r}, which the checkpoint asks for.")


def _rope_scaling(config: Mapping[str, Any], rotary_dim: int) -> dict[str, Any] | None:
    """Return the rope settings with a rope_type; TensorRT-LLM's Phi-3 class has fields of its own for LongRoPE."""
    scaling = dict(config.get("rotary_scaling") or {})
    rope_type = str(scaling.pop("type", None) or scaling.get("rope_type") or "default")
    if config.get("longrope_scaling_short_factors"):
        rope_type = "longrope"
        scaling |= {
            "short_factor": config["longrope_scaling_short_factors"],
            "long_factor": config["longrope_scaling_long_factors"],
            "original_max_position_embeddings": config["original_max_position_embeddings"],
        }
    if rope_type == "default":
        return None
    scaling["rope_type"] = rope_type
    rope.check(scaling, dim=rotary_dim)
    return scaling


def _full_attention_layers(config: Mapping[str, Any], traits: Traits) -> tuple[int, ...] | None:
    """Return the layers that attend to everything where only some of them slide."""
    if not config.get("sliding_window"):
        return None
    if config.get("layer_types"):
        return tuple(index for index, kind in enumerate(config["layer_types"]) if kind == "full_attention")
    period = 2 if traits.slides_every_other_layer else config.get("sliding_window_pattern")
    if not period:
        return None
    return tuple(index for index in range(int(config["num_hidden_layers"])) if (index + 1) % int(period) == 0)


def _mixture(config: Mapping[str, Any]) -> MoeSpec | None:
    moe = dict(config.get("moe") or {})
    count = int(moe.get("num_experts") or config.get("moe_num_experts") or 0)
    if not count:
        return None
    mode = int(moe.get("normalization_mode", config.get("moe_normalization_mode", RENORMALIZE)) or NO_NORMALIZATION)
    if mode not in {NO_NORMALIZATION, RENORMALIZE}:
        raise PlanInfeasible(f"The CPU engine does not know the expert normalization_mode {mode}.")
    return MoeSpec(
        num_experts=count,
        top_k=int(moe.get("top_k") or config.get("moe_top_k") or 1),
        intermediate_size=int(config.get("moe_intermediate_size") or config["intermediate_size"]),
        shared_intermediate_size=config.get("moe_shared_expert_intermediate_size") or None,
        is_topk_normalized=mode == RENORMALIZE,
    )
