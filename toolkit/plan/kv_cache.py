"""The KV cache, counted: what a token and a request take, for heads shared or not, latent keys, windows and states."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from toolkit.plan.tensors import stages_of
from toolkit.specs import HybridModelSpec, LatentModelSpec, ModelSpec, Sharding

FLOAT_BYTES = 2
#: A scale and a zero point, and the tokens of a block of the CPU engine.
CPU_SCALE_BYTES, CPU_BLOCK_TOKENS = 8, 32
#: Bytes of a cached number, by --kv-cache.
BYTES_BY_TYPE = {None: FLOAT_BYTES, "fp8": 1, "int8": 1}


@dataclass(frozen=True, kw_only=True)
class CachedLayers:
    """Layers of one rank that cache alike."""

    layers: int
    bytes_per_token: int  # of one layer
    window: int | None = None  # tokens that a layer looks back
    state_bytes: int = 0  # of one layer and request, however long it is: convolution and recurrent states


def of_model(
    model: ModelSpec, *, kv_bytes: int = FLOAT_BYTES, sharding: Sharding | None = None
) -> tuple[CachedLayers, ...]:
    """Return what the fullest rank caches: keys and values of its layers and heads, by window.

    With fewer KV heads than ranks, each rank holds a whole one.
    """
    ranks = sharding or Sharding()
    if isinstance(model, LatentModelSpec):
        held = math.ceil(model.num_layers / ranks.pp)
        return (latent(held, lora_rank=model.kv_lora_rank, rope_dim=model.rope_head_dim, kv_bytes=kv_bytes),)
    if isinstance(model, HybridModelSpec):
        return _of_hybrid(model, kv_bytes, ranks)
    each = 2 * max(1, model.num_kv_heads // ranks.tp) * model.head_dim * kv_bytes
    stages = [[model.window_of(layer) for layer in held] for held in stages_of(model.num_layers, ranks.pp)]
    # A layer without a window outgrows any number of those with one.
    windows = max(stages, key=lambda each: (each.count(None), len(each)))
    return tuple(
        CachedLayers(layers=windows.count(window), bytes_per_token=each, window=window)
        for window in dict.fromkeys(windows)
    )


def _of_hybrid(model: HybridModelSpec, kv_bytes: int, ranks: Sharding) -> tuple[CachedLayers, ...]:
    """Return keys and values of the full layers, and the states of the others, whose heads ranks share out."""
    stages = [[model.is_recurrent(layer) for layer in held] for held in stages_of(model.num_layers, ranks.pp)]
    held = max(stages, key=lambda each: (each.count(False), len(each)))
    states = sum(held)
    each = 2 * max(1, model.num_kv_heads // ranks.tp) * model.head_dim * kv_bytes
    full = CachedLayers(layers=len(held) - states, bytes_per_token=each)
    return (full, recurrent(states, state_bytes=model.state_bytes // ranks.tp))


def of_cpu_engine(model: ModelSpec) -> tuple[CachedLayers, ...]:
    """Return what OpenVINO caches: 8 bits a number, keys scaled by channel and block, values by token.

    Each scale comes with its zero point. So counted, 1 GiB is as many blocks as the engine says it has.
    """
    key = model.head_dim + model.head_dim * CPU_SCALE_BYTES // CPU_BLOCK_TOKENS
    value = model.head_dim + CPU_SCALE_BYTES
    return tuple(replace(group, bytes_per_token=model.num_kv_heads * (key + value)) for group in of_model(model))


def latent(num_layers: int, *, lora_rank: int, rope_dim: int, kv_bytes: int = FLOAT_BYTES) -> CachedLayers:
    """Return what multi-head latent attention caches: one compressed vector, whole on every tensor rank."""
    return CachedLayers(layers=num_layers, bytes_per_token=(lora_rank + rope_dim) * kv_bytes)


def recurrent(num_layers: int, *, state_bytes: int) -> CachedLayers:
    """Return what the recurrent layers of a hybrid model keep: a state for each request, nothing for a token."""
    return CachedLayers(layers=num_layers, bytes_per_token=0, state_bytes=state_bytes)


def bytes_per_token(cached: Iterable[CachedLayers]) -> int:
    """Return what one more token takes while it is inside every window."""
    return sum(group.layers * group.bytes_per_token for group in cached)


def bytes_of_request(cached: Iterable[CachedLayers], tokens: int, *, tokens_per_block: int = 1) -> int:
    """Return what a request of TOKENS takes at its longest; blocks are taken whole."""
    total = 0
    for group in cached:
        held = min(tokens, group.window) if group.window else tokens
        blocks = -(-held // tokens_per_block)
        total += group.layers * (blocks * tokens_per_block * group.bytes_per_token + group.state_bytes)
    return total


def longest_request(cached: Iterable[CachedLayers], pool_bytes: int, *, at_most: int, tokens_per_block: int) -> int:
    """Return the tokens of the longest request that the pool holds alone, AT_MOST at the most."""
    groups = tuple(cached)
    low, high = 0, at_most
    while low < high:
        middle = (low + high + 1) // 2
        if bytes_of_request(groups, middle, tokens_per_block=tokens_per_block) <= pool_bytes:
            low = middle
        else:
            high = middle - 1
    return low
