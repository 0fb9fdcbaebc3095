"""A checkpoint's config.json: the fields of TensorRT-LLM's PretrainedConfig, and no key that it would refuse."""

from __future__ import annotations

from typing import Any

from toolkit import __version__
from toolkit.specs import ConversionPlan


def checkpoint_config(plan: ConversionPlan) -> dict[str, Any]:
    """Return config.json of a one-rank checkpoint (spec/checkpoint-and-engine 1.2)."""
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
        "rotary_scaling": dict(model.rope_scaling) if model.rope_scaling else None,
        "attn_bias": model.has_qkv_bias,
        "mlp_bias": model.has_mlp_bias,
        "use_parallel_embedding": False,
        "embedding_sharding_dim": 0,
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1, "cp_size": 1, "gpus_per_node": 8},
        "quantization": _quantization(plan),
        "producer": {"name": "trtk", "version": __version__},
    }
    if model.sliding_window:
        config["sliding_window"] = model.sliding_window
    return config


def _quantization(plan: ConversionPlan) -> dict[str, Any]:
    """Return only keys of QuantConfig: an unknown one is a TypeError in trtllm-build."""
    recipe = plan.recipe
    quantization: dict[str, Any] = {"quant_algo": recipe.quant_algo, "kv_cache_quant_algo": None}
    if recipe.quant_algo and recipe.exclude_modules:
        quantization["exclude_modules"] = list(recipe.exclude_modules)
    if plan.group_size:
        quantization |= {"group_size": plan.group_size, "has_zero_point": False, "pre_quant_scale": True}
    return quantization
