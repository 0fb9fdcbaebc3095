"""DeepSeek V2, V2-Lite, V3, R1 and what shares their shape (Kimi K2): latent attention, many small experts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toolkit.models.config import count_of, decoder_spec, experts_of
from toolkit.models.family import PlannedFamily
from toolkit.specs import LatentModelSpec, ModelSpec

#: What transformers takes where config.json is silent.
DEFAULTS = {"first_k_dense_replace": 0, "moe_layer_freq": 1, "n_shared_experts": 0}


def describe(config: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of a DeepSeek; its layers for drafts (num_nextn_predict_layers) are not counted."""
    config = {**DEFAULTS, **config}
    for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
        count_of(config, name)
    head_dim = config["qk_nope_head_dim"] + config["qk_rope_head_dim"]
    decoder = decoder_spec({**config, "head_dim": head_dim, "num_key_value_heads": None}, family="deepseek")
    fields = {field.name: getattr(decoder, field.name) for field in dataclasses.fields(decoder)}
    experts = experts_of(config, count="n_routed_experts", inner="moe_intermediate_size")
    shared = int(config["n_shared_experts"] or 0) * experts.intermediate_size
    fields["moe"] = dataclasses.replace(
        experts,
        shared_intermediate_size=shared or None,
        dense_layers=tuple(layer for layer in range(decoder.num_layers) if not _is_mixture(layer, config)),
    )
    return LatentModelSpec(
        **fields,
        q_lora_rank=config.get("q_lora_rank"),
        kv_lora_rank=config["kv_lora_rank"],
        rope_head_dim=config["qk_rope_head_dim"],
        value_head_dim=config["v_head_dim"],
        has_router_bias=config.get("topk_method") == "noaux_tc",
    )


def _is_mixture(layer: int, config: Mapping[str, Any]) -> bool:
    return bool(layer >= config["first_k_dense_replace"] and layer % config["moe_layer_freq"] == 0)


FAMILY = PlannedFamily(
    name="deepseek",
    title="DeepSeek V2, V3, R1, Kimi K2",
    architectures=("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"),
    describe=describe,
    notes="latent attention, shared experts; planned, not converted",
)
