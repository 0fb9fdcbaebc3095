"""A checkpoint's config.json: the fields of TensorRT-LLM's PretrainedConfig, and no key that it would refuse."""

from __future__ import annotations

from typing import Any

from toolkit import __version__
from toolkit.checkpoint import trtllm_quantization
from toolkit.checkpoint.assignment import Assignment
from toolkit.checkpoint.trtllm_rope import rotary_scaling
from toolkit.models import family_of
from toolkit.specs import ConversionPlan


def documents(plan: ConversionPlan, assignment: Assignment) -> dict[str, dict[str, Any]]:
    """Return a checkpoint's JSON files by name, config.json last; raises PlanInfeasible for what they cannot say."""
    found = {}
    if assignment.is_mixed:
        found["quant_cfg.json"] = trtllm_quantization.mixed(plan, assignment)
    found["config.json"] = _config(plan, assignment)
    return found


def _config(plan: ConversionPlan, assignment: Assignment) -> dict[str, Any]:
    """Return config.json, one for all ranks."""
    model = plan.model
    config: dict[str, Any] = {
        "architecture": model.architecture,
        "dtype": plan.dtype,
        "logits_dtype": "float32",
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads,
        "head_size": model.head_dim,
        "intermediate_size": model.intermediate_size,
        "hidden_act": model.activation,
        "norm_epsilon": model.norm_eps,
        "position_embedding_type": "rope_gpt_neox",
        "max_position_embeddings": model.max_position_embeddings,
        "rotary_base": model.rope_theta,
        "rotary_scaling": rotary_scaling(model),
        "attn_bias": model.has_qkv_bias,
        "mlp_bias": model.has_mlp_bias,
        "use_parallel_embedding": plan.sharding.tp > 1,
        "embedding_sharding_dim": 0,
        "mapping": _mapping(plan),
        "quantization": trtllm_quantization.quantization(plan, assignment),
        "producer": {"name": "trtk", "version": __version__},
    }
    if model.sliding_window:
        config["sliding_window"] = model.sliding_window
    if model.sliding_window and model.full_attention_layers is not None:
        # TensorRT-LLM reads no such field: on a GPU it is max_attention_window_size at run time. The CPU engine does.
        full = set(model.full_attention_layers)
        config["layer_types"] = [
            "full_attention" if index in full else "sliding_attention" for index in range(model.num_layers)
        ]
    return config | family_of(model.architecture).config_fields(model)


def _mapping(plan: ConversionPlan) -> dict[str, int]:
    """Return only keys of Mapping: an unknown one is a TypeError."""
    tp, pp = plan.sharding.tp, plan.sharding.pp
    mapping = {"world_size": tp * pp, "tp_size": tp, "pp_size": pp, "cp_size": 1, "gpus_per_node": 8}
    if plan.model.moe:
        mapping |= {"moe_tp_size": tp // plan.sharding.ep, "moe_ep_size": plan.sharding.ep}
    return mapping
