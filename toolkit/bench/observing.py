"""What the server said of itself while it was loaded: its metrics every second, read by a thread of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toolkit.errors import TrtkError
from toolkit.monitoring.figures import ServerFigures, figures
from toolkit.monitoring.scraping import Scrape, scrape

EVERY_S = 1.0
#: A KV cache so full makes new requests wait, or evicts what others computed.
FULL_KV_FRACTION = 0.95
#: Of the requests in flight: so many waiting is a queue, not a moment.
QUEUE_SHARE = 0.05
BUSY_CLIENT_SHARE = 0.9

Sample = dict[str, Any]


class Observer:
    """Reads a server's metrics from `start` to `stop`; a server that cannot be read gives no samples, and says why."""

    def __init__(self, url: str, *, read: Callable[[str], Scrape] = scrape, every_s: float = EVERY_S) -> None:
        self._url, self._read, self._every_s = url, read, every_s
        self._samples: list[Sample] = []
        self._problem = ""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="server metrics", daemon=True)

    def start(self) -> None:
        """Begin to read; does nothing without a URL."""
        if self._url:
            self._thread.start()

    def stop(self) -> dict[str, Any]:
        """Read no more, and return what was seen."""
        self._is_over.set()
        if self._url:
            self._thread.join(timeout=10)
        return {"url": self._url, "problem": self._problem, "samples": self._samples, "peak": peak(self._samples)}

    def _watch(self) -> None:
        started, before = time.monotonic(), None
        while True:
            try:
                now = self._read(self._url)
            except TrtkError as error:
                self._problem = str(error)
            else:
                self._samples.append(sample(figures(now, before), now.taken_at_s - started))
                before = now
            if self._is_over.wait(self._every_s):
                return


def sample(seen: ServerFigures, at_s: float) -> Sample:
    """Return what a load test keeps of a look at the server; None is what it does not export."""
    engines = seen.engines
    return {
        "t_s": round(at_s, 3),
        "requests_active": _sum(engine.requests_active for engine in engines),
        "requests_waiting": _sum(engine.requests_waiting for engine in engines),
        "kv_fraction": max((e.kv_fraction for e in engines if e.kv_fraction is not None), default=None),
        "kv_blocks_used": _sum(engine.kv_blocks_used for engine in engines),
        "output_tokens_per_s": _sum(engine.output_tokens_per_s for engine in engines),
        "cpu_utilization": seen.cpu_utilization,
        "memory_used_bytes": seen.memory_used_bytes,
        "gpu_utilization": max((gpu.utilization for gpu in seen.gpus if gpu.utilization is not None), default=None),
        "gpu_memory_used_bytes": _sum(gpu.memory_used_bytes for gpu in seen.gpus),
        "gpu_power_w": _sum(gpu.power_w for gpu in seen.gpus),
    }


def _sum(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def peak(samples: Sequence[Sample]) -> Sample:
    """Return the highest value of each figure."""
    names = [name for name in (samples[0] if samples else {}) if name != "t_s"]
    return {name: max((one[name] for one in samples if one[name] is not None), default=None) for name in names}


def limited_by(document: Mapping[str, Any]) -> list[str]:
    """Return what a run's server and client were short of, most telling first; empty where nothing shows."""
    samples = document["server_metrics"]["samples"]
    half = samples[len(samples) // 4 :] or samples  # the first quarter ramps up
    found = []
    if _is_mostly(half, "kv_fraction", lambda one: one["kv_fraction"] >= FULL_KV_FRACTION):
        found.append("the KV cache is full")
    if _is_mostly(half, "requests_waiting", _has_queue):
        found.append("requests queue in the server")
    if document["client"]["cpu_share"] > BUSY_CLIENT_SHARE or (document["send_lag_ms"]["p99"] or 0) > 50:
        found.append("the load tester is busy")
    return found


def _has_queue(one: Sample) -> bool:
    waiting = one["requests_waiting"]
    return bool(waiting >= 1 and waiting >= QUEUE_SHARE * ((one["requests_active"] or 0) + waiting))


def _is_mostly(samples: Sequence[Sample], name: str, test: Callable[[Sample], bool]) -> bool:
    known = [one for one in samples if one[name] is not None]
    return bool(known) and sum(map(test, known)) > len(known) / 2
