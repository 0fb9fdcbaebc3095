"""What each setting of a plan would change: its bytes on the card, and the tokens of KV cache that they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from toolkit.plan import kv_cache, limits
from toolkit.plan.limits import TOKENS_PER_BLOCK, Asked, Loaded
from toolkit.specs import Limits, Sizing


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A setting, a change of it, and what that does."""

    name: str
    change: str
    memory_bytes: int  # taken from the card; less than zero: given back
    kv_tokens: int  # that fit then, more or fewer
    max_concurrency: int  # requests that run at once then
    note: str = ""


def knobs(
    loaded: Loaded, asked: Asked, sizing: Sizing, *, others: Iterable[tuple[str, str, Loaded]] = ()
) -> list[Knob]:
    """Return what the settings of a plan would change; OTHERS are (name, change, what would be loaded then)."""
    now = sizing.limits
    half, tokens = max(1, now.max_batch_size // 2), now.max_num_tokens
    changed = [
        ("max_batch_size", f"{now.max_batch_size} → {half}", dataclasses.replace(now, max_batch_size=half)),
        ("max_batch_size", f"{now.max_batch_size} → {2 * now.max_batch_size}", _doubled(now)),
        ("max_num_tokens", f"{tokens} → {tokens // 2}", dataclasses.replace(now, max_num_tokens=tokens // 2)),
        ("max_seq_len", f"{now.max_seq_len} → {2 * now.max_seq_len}", _longer(now)),
    ]
    found = []
    if not loaded.gpu.is_cpu:
        found = [
            _knob(loaded, loaded, asked, sizing=sizing, changed=(name, change, then)) for name, change, then in changed
        ]
    found += [_knob(loaded, other, asked, sizing=sizing, changed=(name, change, now)) for name, change, other in others]
    if not loaded.gpu.is_cpu:
        found.append(_headroom(loaded, asked, sizing))
    return found


def longest_context(loaded: Loaded, sizing: Sizing, *, users: int = 1) -> int:
    """Return the tokens that each of USERS requests can have at once, the model's context at the most."""
    return kv_cache.longest_request(
        loaded.cached,
        sizing.memory.kv_cache // max(1, users),
        at_most=loaded.model.max_position_embeddings,
        tokens_per_block=TOKENS_PER_BLOCK,
    )


def _doubled(now: Limits) -> Limits:
    return dataclasses.replace(now, max_batch_size=2 * now.max_batch_size)


def _longer(now: Limits) -> Limits:
    return dataclasses.replace(now, max_seq_len=2 * now.max_seq_len)


def _knob(loaded: Loaded, other: Loaded, asked: Asked, *, sizing: Sizing, changed: tuple[str, str, Limits]) -> Knob:
    name, change, then = changed
    pool = max(0, limits.pool_bytes(other, asked, then))
    per_token = max(1, kv_cache.bytes_per_token(other.cached))
    each = kv_cache.bytes_of_request(other.cached, sizing.request_tokens, tokens_per_block=TOKENS_PER_BLOCK)
    before = 0 if loaded.gpu.is_cpu else limits.needed_bytes(loaded, sizing.limits)
    after = 0 if loaded.gpu.is_cpu else limits.needed_bytes(other, then)
    return Knob(
        name=name,
        change=change,
        memory_bytes=other.weights_bytes - loaded.weights_bytes if loaded.gpu.is_cpu else after - before,
        kv_tokens=pool // per_token - sizing.kv.max_tokens,
        max_concurrency=min(then.max_batch_size, pool // each),
    )


def _headroom(loaded: Loaded, asked: Asked, sizing: Sizing) -> Knob:
    """Return what leaving a fifth of the card free would cost."""
    share = 0.8 if asked.headroom != 0.8 else 0.9
    pool = max(0, limits.pool_bytes(loaded, dataclasses.replace(asked, headroom=share), sizing.limits))
    each = kv_cache.bytes_of_request(loaded.cached, sizing.request_tokens, tokens_per_block=TOKENS_PER_BLOCK)
    return Knob(
        name="headroom",
        change=f"{share:.0%} of the card",
        memory_bytes=pool - sizing.memory.kv_cache,
        kv_tokens=pool // max(1, sizing.kv.bytes_per_token) - sizing.kv.max_tokens,
        max_concurrency=min(sizing.limits.max_batch_size, pool // each),
    )
