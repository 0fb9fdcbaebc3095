"""What a server, or the load tester, was short of: read from the server's metrics, and from both sides' own figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: A KV cache so full makes new requests wait, or evicts what others computed.
FULL_KV_FRACTION = 0.95
#: Of the requests in flight: so many waiting is a queue, not a moment.
QUEUE_SHARE = 0.05
#: Of the time that requests took: so much in Triton's own queue.
TRITON_QUEUE_SHARE = 0.1
BUSY_SHARE = 0.9
MAX_SEND_LAG_P99_MS = 50.0

KV_CACHE = "the KV cache is full"
QUEUE = "requests queue in the server"
TRITON_QUEUE = "requests queue in Triton, before the engine"
GPU = "the GPU is busy all the time"
CPU = "the server's CPU is busy all the time"
CLIENT = "the load tester is busy"

Sample = Mapping[str, Any]


def limited_by(document: Mapping[str, Any]) -> list[str]:
    """Return what a run was short of, most telling first; empty where nothing shows."""
    samples = document["server_metrics"]["samples"]
    later = samples[len(samples) // 4 :] or samples  # the first quarter ramps up
    tests: tuple[tuple[str, bool], ...] = (
        (KV_CACHE, _is_mostly(later, "kv_fraction", lambda one: one["kv_fraction"] >= FULL_KV_FRACTION)),
        (QUEUE, _is_mostly(later, "requests_waiting", _has_queue)),
        (TRITON_QUEUE, _triton_queue_share(document) >= TRITON_QUEUE_SHARE),
        (GPU, _is_mostly(later, "gpu_utilization", lambda one: one["gpu_utilization"] >= BUSY_SHARE)),
        (CPU, _is_mostly(later, "cpu_utilization", lambda one: one["cpu_utilization"] >= BUSY_SHARE)),
        (CLIENT, is_client_busy(document)),
    )
    return [name for name, is_short in tests if is_short]


def is_client_busy(document: Mapping[str, Any]) -> bool:
    """Whether the load tester itself may have been what was measured."""
    lag_ms = document["send_lag_ms"]["p99"] or 0.0
    return bool(document["client"]["cpu_share"] > BUSY_SHARE or lag_ms > MAX_SEND_LAG_P99_MS)


def _has_queue(one: Sample) -> bool:
    waiting = one["requests_waiting"]
    return bool(waiting >= 1 and waiting >= QUEUE_SHARE * ((one["requests_active"] or 0) + waiting))


def _is_mostly(samples: Sequence[Sample], name: str, test: Callable[[Sample], bool]) -> bool:
    known = [one for one in samples if one.get(name) is not None]
    return bool(known) and sum(map(test, known)) > len(known) / 2


def _triton_queue_share(document: Mapping[str, Any]) -> float:
    """Return how much of the time of its requests the model under test spent in Triton's queue."""
    models = (document.get("server") or {}).get("models") or {}
    longest = max((row["queue_s"] / row["requests"] for row in models.values() if row["requests"]), default=0.0)
    latency_ms = document.get("e2e_latency_ms", {}).get("mean")
    return 1000 * longest / latency_ms if latency_ms else 0.0


def evidence(document: Mapping[str, Any]) -> list[str]:
    """Return the figures behind it, in words: how full, how many waited, how long."""
    peak, said = document["server_metrics"]["peak"], []
    if (fraction := peak.get("kv_fraction")) is not None:
        said.append(f"the KV cache is {fraction:.0%} full at most")
    if (waiting := peak.get("requests_waiting")) is not None:
        places = peak.get("requests_max")
        of = f", of {places:.0f} places" if places else ""
        busy = f"up to {peak.get('requests_active') or 0:.0f} requests are worked on{of}"
        said += [busy, f"up to {waiting:.0f} wait" if waiting else "nobody waits"]
    said += [
        f"the {name} is {peak[key]:.0%} busy at most"
        for name, key in (("GPU", "gpu_utilization"), ("CPU", "cpu_utilization"))
        if peak.get(key) is not None
    ]
    return [*said, f"the load tester uses {document['client']['cpu_share']:.0%} of a core"]
