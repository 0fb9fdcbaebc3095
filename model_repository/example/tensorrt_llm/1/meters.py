"""What the engine says of itself, in NVIDIA's metric families: read between steps, sent from a thread of its own."""

from __future__ import annotations

import os
import queue
import threading
import time
from pathlib import Path
from typing import Any

from families import Families
from settings import TOKENS_PER_BLOCK, Settings

REQUESTS, BLOCKS = "nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics"
BATCHER, MEMORY = "nv_trt_llm_inflight_batcher_metrics", "nv_trt_llm_runtime_memory_metrics"
GENERAL = "nv_trt_llm_general_metrics"
PAGE = os.sysconf("SC_PAGE_SIZE")


class Meters:
    """Takes a reading now and then; the server is told by another thread, since telling it takes a while."""

    def __init__(self, families: Families, settings: Settings) -> None:
        self.families = families
        self.period_s, self.most = settings.stats_period_s, settings.max_batch_size
        self.block_bytes = 0.0
        self.steps = 0
        self.next_at = 0.0
        self.readings: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self.publish, name="meters", daemon=True).start()

    def start(self, pipeline: Any, *, block_share: float) -> None:
        """Take the first reading; BLOCK_SHARE is the percentage of the cache that one block is."""
        metrics = pipeline.get_metrics()
        self.block_bytes = metrics.kv_cache_size_in_bytes * block_share / 100
        self.readings.put(self.reading(metrics, [], 0))

    def step(self, pipeline: Any, rows: list[Any], *, waiting: int) -> None:
        """Count a step; when it is time, or when nothing is left to do, take a reading."""
        self.steps += 1
        now = time.monotonic()
        if now >= self.next_at or not rows:
            self.next_at = now + self.period_s
            self.readings.put(self.reading(pipeline.get_metrics(), rows, waiting))

    def finished(self, row: Any) -> None:
        """Count a sequence that ended."""
        self.readings.put((len(row.asked.prompt), len(row.tokens)))

    def reading(self, metrics: Any, rows: list[Any], waiting: int) -> dict[str, dict[str, float]]:
        """Return each family's values."""
        active = min(len(rows), self.most)
        in_context = [row for row in rows if not row.tokens][:active]
        scheduled = min(metrics.scheduled_requests, active)
        blocks = round(metrics.kv_cache_size_in_bytes / self.block_bytes) if self.block_bytes else 0
        used = round(blocks * metrics.cache_usage / 100)
        return {
            REQUESTS: {
                "active": active,
                "max": self.most,
                "scheduled": scheduled,
                "context": len(in_context),
                "waiting": len(rows) - active + waiting,
            },
            BLOCKS: {
                "max": blocks,
                "free": blocks - used,
                "used": used,
                "tokens_per": TOKENS_PER_BLOCK,
                "fraction": used / blocks if blocks else 0.0,
            },
            BATCHER: {
                "total_context_tokens": sum(len(row.asked.prompt) for row in in_context),
                "generation_requests": active - len(in_context),
                "micro_batch_id": 0,
                "paused_requests": active - scheduled,
            },
            MEMORY: {"cpu": resident_bytes(), "gpu": 0, "pinned": 0},
            GENERAL: {"timestamp": round(time.time(), 1), "iteration_counter": self.steps},
        }

    def publish(self) -> None:
        """Tell the server what was read."""
        while (item := self.readings.get()) is not None:
            if isinstance(item, tuple):
                self.families.observe(input_tokens=item[0], output_tokens=item[1])
                continue
            for family, values in item.items():
                self.families.set(family, **values)

    def close(self) -> None:
        """Let the thread end."""
        self.readings.put(None)


def resident_bytes() -> int:
    """Return the memory that this process holds."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE
