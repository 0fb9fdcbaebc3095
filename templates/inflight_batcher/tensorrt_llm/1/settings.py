"""The engine's parameters, and the pipeline that they make."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from served import flag

#: Tokens in a block of OpenVINO's paged KV cache on a CPU.
TOKENS_PER_BLOCK = 32


@dataclass(frozen=True)
class Settings:
    """The parameters of config.pbtxt that shape the pipeline."""

    max_num_tokens: int
    max_batch_size: int
    num_kv_blocks: int
    cache_gib: int
    has_prefix_cache: bool
    splits_prompts: bool
    num_threads: int
    activation_group_size: int | None
    stream_interval: int  # 0: auto
    cancel_period_s: float
    stats_period_s: float

    @classmethod
    def read(cls, settings: dict[str, str]) -> Settings:
        """Read them; what is not set keeps OpenVINO's own default."""
        kv_tokens = int(settings.get("max_tokens_in_paged_kv_cache", 0))
        interval = settings.get("stream_interval", "auto")
        return cls(
            max_num_tokens=int(settings["max_num_tokens"]),
            max_batch_size=int(settings["max_batch_size"]),
            num_kv_blocks=-(-kv_tokens // TOKENS_PER_BLOCK),
            cache_gib=0 if kv_tokens else -(-int(settings.get("kv_cache_bytes", 0)) // 2**30),
            has_prefix_cache=flag(settings.get("enable_kv_cache_reuse", "true")),
            splits_prompts=flag(settings.get("enable_chunked_context", "true")),
            num_threads=int(settings.get("num_threads", 0)),
            activation_group_size=None
            if (size := settings.get("dynamic_quantization_group_size")) is None
            else int(size),
            stream_interval=0 if interval == "auto" else int(interval),
            cancel_period_s=int(settings.get("cancellation_check_period_ms", 100)) / 1e3,
            stats_period_s=int(settings.get("stats_check_period_ms", 100)) / 1e3,
        )

    def pipeline(self, folder: Path) -> Any:
        """Load the model."""
        import openvino_genai

        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = self.max_num_tokens
        scheduler.max_num_seqs = self.max_batch_size
        scheduler.num_kv_blocks = self.num_kv_blocks
        scheduler.cache_size = self.cache_gib
        scheduler.enable_prefix_caching = self.has_prefix_cache
        scheduler.dynamic_split_fuse = self.splits_prompts
        # What the build decided for this model, such as the precision of activations; a parameter here wins.
        chosen = folder / "runtime.json"
        properties = json.loads(chosen.read_text(encoding="utf-8")) if chosen.is_file() else {}
        if self.num_threads:
            properties["INFERENCE_NUM_THREADS"] = self.num_threads
        if self.activation_group_size is not None:
            properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = self.activation_group_size
        return openvino_genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)
