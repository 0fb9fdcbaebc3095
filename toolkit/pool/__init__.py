"""Several models on one device: loaded when they are asked for, unloaded when room is needed."""

from toolkit.pool.combining import Source, combined, loaded_of, need_distinct, parts_of
from toolkit.pool.config import PoolConfig, PooledModel, Size
from toolkit.pool.ledger import need_to_fit, sizes_bytes
from toolkit.pool.lending import NotHad
from toolkit.pool.pool import Pool
from toolkit.pool.sizes import kv_tokens_of, size_of

__all__ = [
    "NotHad",
    "Pool",
    "PoolConfig",
    "PooledModel",
    "Size",
    "Source",
    "combined",
    "kv_tokens_of",
    "loaded_of",
    "need_distinct",
    "need_to_fit",
    "parts_of",
    "size_of",
    "sizes_bytes",
]
