"""The LLM API's statistics in the metric families of NVIDIA's engine backend."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from families import Families

PERIOD_S, TIMEOUT_S = 0.5, 2.0
#: Family → label's value → the key of its statistics, dotted.
KEYS = {
    "nv_trt_llm_request_metrics": {
        "active": "numActiveRequests",
        "max": "maxNumActiveRequests",
        "waiting": "numQueuedRequests",
        "scheduled": "inflightBatchingStats.numScheduledRequests",
        "context": "inflightBatchingStats.numContextRequests",
    },
    "nv_trt_llm_runtime_memory_metrics": {"cpu": "cpuMemUsage", "gpu": "gpuMemUsage", "pinned": "pinnedMemUsage"},
    "nv_trt_llm_kv_cache_block_metrics": {
        "max": "kvCacheStats.maxNumBlocks",
        "free": "kvCacheStats.freeNumBlocks",
        "used": "kvCacheStats.usedNumBlocks",
        "tokens_per": "kvCacheStats.tokensPerBlock",
        "reused": "kvCacheStats.reusedBlocks",
    },
    "nv_trt_llm_inflight_batcher_metrics": {
        "total_context_tokens": "inflightBatchingStats.numCtxTokens",
        "generation_requests": "inflightBatchingStats.numGenRequests",
        "micro_batch_id": "inflightBatchingStats.microBatchId",
        "paused_requests": "inflightBatchingStats.numPausedRequests",
    },
    "nv_trt_llm_general_metrics": {"iteration_counter": "iter"},
}


async def follow(llm: Any, families: Families) -> None:
    """Set the gauges to the newest statistics, as long as the loop runs."""
    while True:
        newest: Any = None
        try:
            async for one in llm.get_stats_async(TIMEOUT_S):
                newest = one
        # Nothing came in time: an engine without work takes no steps.
        except (asyncio.TimeoutError, RuntimeError):
            pass
        if newest:
            publish(json.loads(newest) if isinstance(newest, str) else newest, families)
        await asyncio.sleep(PERIOD_S)


def publish(stats: Mapping[str, Any], families: Families) -> None:
    """Set the gauges to one iteration's statistics; what a release does not say stays as it is."""
    for family, keys in KEYS.items():
        values = {label: _at(stats, key) for label, key in keys.items()}
        families.set(family, **{label: float(value) for label, value in values.items() if value is not None})
    blocks, used = (_at(stats, f"kvCacheStats.{name}NumBlocks") for name in ("max", "used"))
    if blocks:
        families.set("nv_trt_llm_kv_cache_block_metrics", fraction=(used or 0) / blocks)
    families.set("nv_trt_llm_general_metrics", timestamp=round(time.time(), 1))


def _at(stats: Any, key: str) -> Any:
    for name in key.split("."):
        stats = stats.get(name) if isinstance(stats, Mapping) else None
    return stats
