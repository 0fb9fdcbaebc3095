"""Read a Hugging Face config.json: the fields that every decoder shares, in old and new spellings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.errors import PlanInfeasible
from toolkit.specs import ModelSpec

#: transformers 5 writes rope_parameters; before, rope_theta stood alone beside rope_scaling.
DEFAULT_ROPE_THETA = 10000.0
DTYPES = {"float32", "float16", "bfloat16"}


def decoder_spec(config: Mapping[str, Any], *, family: str) -> ModelSpec:
    """Return the spec of a Llama-shaped decoder; raises PlanInfeasible when a field is missing or cannot be."""
    need_fields(config, "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    if heads % kv_heads:
        raise PlanInfeasible(f"config.json has {heads} attention heads, which {kv_heads} KV heads do not divide.")
    theta, scaling = rope_of(config)
    return ModelSpec(
        family=family,
        architecture=str(config["architectures"][0]),
        vocab_size=int(config["vocab_size"]),
        hidden_size=int(config["hidden_size"]),
        num_layers=int(config["num_hidden_layers"]),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        intermediate_size=int(config["intermediate_size"]),
        activation=str(config.get("hidden_act") or "silu"),
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        rope_theta=theta,
        rope_scaling=scaling,
        max_position_embeddings=int(config.get("max_position_embeddings") or 2048),
        sliding_window=config.get("sliding_window"),
        has_qkv_bias=bool(config.get("attention_bias", False)),
        has_output_bias=bool(config.get("attention_bias", False)),
        has_mlp_bias=bool(config.get("mlp_bias", False)),
        is_tied=bool(config.get("tie_word_embeddings", False)),
        bos_token_id=config.get("bos_token_id"),
        eos_token_ids=token_ids(config.get("eos_token_id")),
        pad_token_id=config.get("pad_token_id"),
        dtype=dtype_of(config),
    )


def need_fields(config: Mapping[str, Any], *names: str) -> None:
    """Raise PlanInfeasible when config.json lacks a field that the shape depends on."""
    for name in names:
        if config.get(name) is None:
            raise PlanInfeasible(f"config.json has no {name!r}.", hint="Download the model's config.json again.")


def rope_of(config: Mapping[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """Return (theta, scaling); scaling is None for plain rotary embeddings and names its rope_type otherwise."""
    parameters = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    theta = parameters.pop("rope_theta", None) or config.get("rope_theta") or DEFAULT_ROPE_THETA
    rope_type = str(parameters.pop("type", None) or parameters.get("rope_type") or "default")
    if rope_type == "default":
        return float(theta), None
    return float(theta), {**parameters, "rope_type": rope_type}


def token_ids(value: Any) -> tuple[int, ...]:
    """Return the ids of a field that is an id, a list of ids, or null."""
    if value is None:
        return ()
    return tuple(int(item) for item in (value if isinstance(value, (list, tuple)) else [value]))


def dtype_of(config: Mapping[str, Any]) -> str:
    """Return the dtype of the weights; float16 where the config names none that we know."""
    named = str(config.get("dtype") or config.get("torch_dtype") or "float16").removeprefix("torch.")
    return named if named in DTYPES else "float16"
