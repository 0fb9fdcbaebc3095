"""The linears of a decoder layer, by part: their shapes, which of them share an input, how TensorRT-LLM fuses them.

attention.q  attention.k  attention.v  attention.dense
mlp.fc (the activated branch, HF's gate_proj)   mlp.gate (HF's up_proj)   mlp.proj
mlp.experts.{e}.fc|gate|proj   mlp.shared_expert.fc|gate|proj
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from toolkit.specs.model import HybridModelSpec, LatentModelSpec, ModelSpec

T = TypeVar("T")

MLP = ("fc", "gate", "proj")
EXPERT = "mlp.experts.{expert}."
SHARED_EXPERT = "mlp.shared_expert."


def shapes(spec: ModelSpec, layer: int) -> dict[str, tuple[int, int]]:
    """Return [N, K] of every linear of a layer, in the order in which the layer runs them."""
    found = attention(spec, is_recurrent=spec.is_recurrent(layer))
    moe = spec.moe
    if moe is None or not spec.is_moe_layer(layer):
        return found | _mlp("mlp.", spec.hidden_size, spec.intermediate_size)
    if moe.shared_intermediate_size:
        found |= _mlp(SHARED_EXPERT, spec.hidden_size, moe.shared_intermediate_size)
    for expert in range(moe.num_experts):
        found |= _mlp(EXPERT.format(expert=expert), spec.hidden_size, moe.intermediate_size)
    return found


def attention(spec: ModelSpec, *, is_recurrent: bool = False) -> dict[str, tuple[int, int]]:
    """Return [N, K] of the linears of a layer's attention, of whatever kind it is."""
    if isinstance(spec, LatentModelSpec):
        return latent_attention(spec)
    if isinstance(spec, HybridModelSpec) and is_recurrent:
        values = spec.value_heads * spec.state_value_dim
        return {
            "attention.qkvz": (spec.conv_channels + values, spec.hidden_size),
            "attention.ba": (2 * spec.value_heads, spec.hidden_size),
            "attention.dense": (spec.hidden_size, values),
        }
    queries, keys = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    gates = queries if isinstance(spec, HybridModelSpec) else 0
    return {
        "attention.q": (queries + gates, spec.hidden_size),
        "attention.k": (keys, spec.hidden_size),
        "attention.v": (keys, spec.hidden_size),
        "attention.dense": (spec.hidden_size, queries),
    }


def latent_attention(spec: LatentModelSpec) -> dict[str, tuple[int, int]]:
    """Return [N, K] of multi-head latent attention's linears: *_a compress and are whole on every rank, *_b widen."""
    queries = spec.num_heads * spec.head_dim
    widened = spec.num_heads * (spec.head_dim - spec.rope_head_dim + spec.value_head_dim)
    found = {"attention.q": (queries, spec.hidden_size)}
    if spec.q_lora_rank:
        found = {"attention.q_a": (spec.q_lora_rank, spec.hidden_size), "attention.q_b": (queries, spec.q_lora_rank)}
    return found | {
        "attention.kv_a": (spec.latent_dim, spec.hidden_size),
        "attention.kv_b": (widened, spec.kv_lora_rank),
        "attention.dense": (spec.hidden_size, spec.num_heads * spec.value_head_dim),
    }


def _mlp(prefix: str, hidden: int, inner: int) -> dict[str, tuple[int, int]]:
    return {f"{prefix}fc": (inner, hidden), f"{prefix}gate": (inner, hidden), f"{prefix}proj": (hidden, inner)}


def parameters(spec: ModelSpec) -> int:
    """Return the weights of all linears of all layers, biases not counted."""
    return sum(rows * width for layer in range(spec.num_layers) for rows, width in shapes(spec, layer).values())


def groups(spec: ModelSpec, layer: int) -> dict[str, tuple[str, ...]]:
    """Return the linears that share an input, by the name of that input; experts count as one.

    The names are those of TensorRT-LLM's modules where there is one: attention.qkv, attention.dense, mlp.fc, mlp.proj,
    mlp.shared_expert.fc, mlp.shared_expert.proj. What shares an input shares its prequant factors and input scale.
    """
    found: dict[str, tuple[str, ...]] = {
        "attention.qkv": ("attention.q", "attention.k", "attention.v"),
        "attention.dense": ("attention.dense",),
    }
    moe = spec.moe
    if moe is None or not spec.is_moe_layer(layer):
        return found | {"mlp.fc": ("mlp.fc", "mlp.gate"), "mlp.proj": ("mlp.proj",)}
    if moe.shared_intermediate_size:
        found |= {
            f"{SHARED_EXPERT}fc": (f"{SHARED_EXPERT}fc", f"{SHARED_EXPERT}gate"),
            f"{SHARED_EXPERT}proj": (f"{SHARED_EXPERT}proj",),
        }
    experts = [EXPERT.format(expert=expert) for expert in range(moe.num_experts)]
    found["mlp.fc"] = tuple(f"{prefix}{name}" for prefix in experts for name in ("fc", "gate"))
    found["mlp.proj"] = tuple(f"{prefix}proj" for prefix in experts)
    return found


def modules(spec: ModelSpec, layer: int) -> dict[str, tuple[str, ...]]:
    """Return TensorRT-LLM's dense modules and the parts that each concatenates on N, in that order.

    A module of a mixture is named here by its expert's part names (`mlp.experts.0.fc` = up and gate): the writer stacks
    them into `mlp.fc` and `mlp.proj`.
    """
    found: dict[str, tuple[str, ...]] = {
        "attention.qkv": ("attention.q", "attention.k", "attention.v"),
        "attention.dense": ("attention.dense",),
    }
    for part in shapes(spec, layer):
        prefix, _, name = part.rpartition(".")
        if prefix == "attention":
            continue
        is_fused = prefix != "mlp" or spec.is_mlp_fused
        if name == "fc":
            # A fused module is [up ; gate]: what is multiplied first, what is activated second.
            found[part] = (f"{prefix}.gate", f"{prefix}.fc") if is_fused else (part,)
        elif name == "proj" or not is_fused:
            found[part] = (part,)
    return found


def by_module(values: Mapping[str, T]) -> list[dict[str, T]]:
    """Return what parts of a group hold by the module that an engine fuses them into: q, k and v; one expert's."""
    found: dict[str, dict[str, T]] = {}
    for part, value in values.items():
        found.setdefault(part.rpartition(".")[0], {})[part] = value
    return list(found.values())
