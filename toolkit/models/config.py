"""Read a Hugging Face config.json: the fields that every decoder shares, in old and new spellings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from toolkit import rope
from toolkit.errors import PlanInfeasible
from toolkit.specs import ModelSpec, MoeSpec

#: transformers 5 writes rope_parameters; before, rope_theta stood alone beside rope_scaling.
DEFAULT_ROPE_THETA = 10000.0
DTYPES = {"float32", "float16", "bfloat16"}
#: Where transformers 5 nests rope_parameters, it does so by these names of layer_types.
FULL, SLIDING = "full_attention", "sliding_attention"
#: Their rope settings need the length of the first training, which is max_position_embeddings when nothing is said.
TRAINED_LENGTH = "original_max_position_embeddings"
NEEDS_TRAINED_LENGTH = {"llama3", "yarn", "longrope"}
#: Far above any model: what is beyond is a slip of the pen, and would be counted layer by layer.
MOST_LAYERS = 10_000
#: Spellings of Phi-3's first releases.
ROPE_ALIASES = {"su": "longrope"}


def decoder_spec(config: Mapping[str, Any], *, family: str) -> ModelSpec:
    """Return the spec of a Llama-shaped decoder; raises PlanInfeasible when a field is missing or cannot be."""
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        count_of(config, name)
    for name in ("num_key_value_heads", "max_position_embeddings"):
        if config.get(name) is not None:
            count_of(config, name)
    if int(config["num_hidden_layers"]) > MOST_LAYERS:
        raise PlanInfeasible(f"config.json has {config['num_hidden_layers']} layers; no model has over {MOST_LAYERS}.")
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    if heads % kv_heads:
        raise PlanInfeasible(f"config.json has {heads} attention heads, which {kv_heads} KV heads do not divide.")
    head_dim = _head_dim(config, heads)
    theta, scaling = rope_of(config)
    rotary_dim = int(head_dim * _partial_rotary_factor(config))
    if scaling is not None:
        rope.check(scaling, dim=rotary_dim)
    return ModelSpec(
        family=family,
        architecture=str(config["architectures"][0]),
        vocab_size=int(config["vocab_size"]),
        hidden_size=int(config["hidden_size"]),
        num_layers=int(config["num_hidden_layers"]),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=int(config["intermediate_size"]),
        activation=str(config.get("hidden_act") or "silu"),
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        rope_theta=theta,
        rope_scaling=scaling,
        rotary_dim=None if rotary_dim == head_dim else rotary_dim,
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


def count_of(config: Mapping[str, Any], name: str) -> int:
    """Return a field that must be a whole number above zero."""
    need_fields(config, name)
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PlanInfeasible(
            f"config.json's {name!r} is {value!r}, not a number of things.",
            hint="Download the model's config.json again.",
        )
    return value


def _head_dim(config: Mapping[str, Any], heads: int) -> int:
    hidden = int(config["hidden_size"])
    if config.get("head_dim"):
        return count_of(config, "head_dim")
    if hidden % heads:
        raise PlanInfeasible(f"config.json has a hidden_size of {hidden}, which {heads} attention heads do not divide.")
    return hidden // heads


def rope_of(config: Mapping[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """Return (theta, scaling); scaling is None for plain rotary embeddings and names its rope_type otherwise.

    Where each layer type has its own settings, these are those of full attention.
    """
    parameters = _rope_parameters(config)
    theta = parameters.pop("rope_theta", None) or config.get("rope_theta") or DEFAULT_ROPE_THETA
    parameters.pop("partial_rotary_factor", None)
    rope_type = str(parameters.pop("type", None) or parameters.get("rope_type") or "default")
    rope_type = ROPE_ALIASES.get(rope_type, rope_type)
    if rope_type == "default":
        return float(theta), None
    if rope_type in NEEDS_TRAINED_LENGTH:
        longest = config.get("max_position_embeddings")
        parameters[TRAINED_LENGTH] = config.get(TRAINED_LENGTH) or parameters.get(TRAINED_LENGTH) or longest
    return float(theta), {**parameters, "rope_type": rope_type}


def local_rope_theta(config: Mapping[str, Any], default: float) -> float:
    """Return the rope base of sliding layers; raises PlanInfeasible when they are scaled, which no model does."""
    nested = dict((config.get("rope_parameters") or {}).get(SLIDING) or {})
    rope_type = nested.get("rope_type") or nested.get("type") or "default"
    if rope_type != "default":
        raise PlanInfeasible(f"trtk knows no rope scaling of sliding layers; config.json asks for {rope_type!r}.")
    return float(nested.get("rope_theta") or config.get("rope_local_base_freq") or default)


def _rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rope settings of full attention in one dict, old spelling or new.

    Where both are there, somebody added rope_scaling for longer contexts, and transformers follows it.
    """
    found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(found, Mapping):
        raise PlanInfeasible(f"config.json's rope settings are {found!r}, not an object.")
    return dict(found.get(FULL) or {}) if FULL in found or SLIDING in found else dict(found)


def _partial_rotary_factor(config: Mapping[str, Any]) -> float:
    return float(_rope_parameters(config).get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0)


def full_layers(config: Mapping[str, Any], is_full: Callable[[int], bool]) -> tuple[int, ...] | None:
    """Return the layers that attend to everything, by `layer_types` or else by the family's rule; None without window.

    Raises PlanInfeasible for a type of layer that is neither full nor sliding.
    """
    if not config.get("sliding_window"):
        return None
    count, named = int(config["num_hidden_layers"]), config.get("layer_types")
    if named is None:
        return tuple(index for index in range(count) if is_full(index))
    unknown = sorted(set(named) - {FULL, SLIDING})
    if unknown or len(named) != count:
        what = f"the types {', '.join(unknown)}" if unknown else f"{len(named)} types for {count} layers"
        raise PlanInfeasible(f"config.json's layer_types has {what}; trtk knows {FULL} and {SLIDING}, one each layer.")
    return tuple(index for index, kind in enumerate(named) if kind == FULL)


def switched_window(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config whose sliding_window is null unless Qwen's use_sliding_window is on."""
    return {**config, "sliding_window": config.get("sliding_window") if config.get("use_sliding_window") else None}


def experts_of(config: Mapping[str, Any], *, count: str, inner: str) -> MoeSpec:
    """Return the mixture of a config whose fields for the number of experts and their inner size are COUNT and INNER.

    Qwen's mlp_only_layers and decoder_sparse_step keep some layers dense.
    """
    spec = MoeSpec(
        num_experts=count_of(config, count),
        top_k=count_of(config, "num_experts_per_tok"),
        intermediate_size=count_of(config, inner),
        shared_intermediate_size=config.get("shared_expert_intermediate_size"),
        is_topk_normalized=bool(config.get("norm_topk_prob", False)),
        dense_layers=tuple(
            index
            for index in range(int(config["num_hidden_layers"]))
            if index in (config.get("mlp_only_layers") or ())
            or (index + 1) % int(config.get("decoder_sparse_step") or 1)
        ),
    )
    if spec.top_k > spec.num_experts:
        raise PlanInfeasible(f"config.json picks {spec.top_k} of {spec.num_experts} experts.")
    return spec


def token_ids(value: Any) -> tuple[int, ...]:
    """Return the ids of a field that is an id, a list of ids, or null."""
    if value is None:
        return ()
    return tuple(int(item) for item in (value if isinstance(value, (list, tuple)) else [value]))


def dtype_of(config: Mapping[str, Any]) -> str:
    """Return the dtype of the weights; float16 where the config names none that we know."""
    named = str(config.get("dtype") or config.get("torch_dtype") or "float16").removeprefix("torch.")
    return named if named in DTYPES else "float16"
