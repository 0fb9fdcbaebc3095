"""The metric families that NVIDIA's backend exports, filled by an engine that is not NVIDIA's."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

#: Family → what it says, its label, and the label's values.
GAUGES = {
    "nv_trt_llm_request_metrics": (
        "Requests of the engine",
        "request_type",
        ("active", "max", "scheduled", "context", "waiting"),
    ),
    "nv_trt_llm_runtime_memory_metrics": (
        "Memory of the engine's process in bytes",
        "memory_type",
        ("cpu", "gpu", "pinned"),
    ),
    "nv_trt_llm_kv_cache_block_metrics": (
        "Blocks of the KV cache",
        "kv_cache_block_type",
        ("max", "free", "used", "tokens_per", "reused", "fraction"),
    ),
    "nv_trt_llm_inflight_batcher_metrics": (
        "In-flight batching",
        "inflight_batcher_specific_metric",
        ("total_context_tokens", "generation_requests", "micro_batch_id", "paused_requests"),
    ),
    "nv_trt_llm_general_metrics": (
        "Time of the last refresh in seconds since 1970, and steps of the engine",
        "general_type",
        ("timestamp", "iteration_counter"),
    ),
}
HISTOGRAMS = {
    "nv_llm_input_token_len": ("Tokens of prompts", "total_input_tokens"),
    "nv_llm_output_token_len": ("Tokens of answers", "total_output_tokens"),
}
BUCKETS = [10.0, 50.0, 100.0, 500.0, 1000.0]


class Families:
    """One model's series; setting one is a message to the server, so only what changed is sent."""

    def __init__(self, args: dict[str, str], *, without: tuple[str, ...] = ()) -> None:
        self.labels = {"model": args["model_name"], "version": args["model_version"]}
        self.families: list[Any] = []  # they end with their objects
        self.sent: dict[tuple[str, str], float] = {}
        self.gauges = {
            (name, value): self._series(name, meaning, {label: value})
            for name, (meaning, label, values) in GAUGES.items()
            for value in values
            if value not in without
        }
        self.histograms = {
            name: self._series(name, meaning, {"response_metric_type": value}, buckets=BUCKETS)
            for name, (meaning, value) in HISTOGRAMS.items()
        }

    def _series(self, name: str, meaning: str, labels: dict[str, str], *, buckets: list[float] | None = None) -> Any:
        kind = pb_utils.MetricFamily.HISTOGRAM if buckets else pb_utils.MetricFamily.GAUGE
        known = next((each for each in self.families if each[0] == name), None)
        if known is None:
            known = (name, pb_utils.MetricFamily(name=name, description=meaning, kind=kind))
            self.families.append(known)
        return known[1].Metric(labels={**self.labels, **labels}, **({"buckets": buckets} if buckets else {}))

    def set(self, family: str, **values: float) -> None:
        """Set gauges of a family by their label's value."""
        for label, value in values.items():
            if self.sent.get((family, label)) != value:
                self.gauges[family, label].set(value)
                self.sent[family, label] = value

    def observe(self, *, input_tokens: int, output_tokens: int) -> None:
        """Count a finished request."""
        self.histograms["nv_llm_input_token_len"].observe(input_tokens)
        self.histograms["nv_llm_output_token_len"].observe(output_tokens)
