"""What the server said of itself while it was loaded: its metrics and its GPUs every second, read by a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from toolkit.bench import energy
from toolkit.errors import TrtkError
from toolkit.monitoring.figures import INPUT_TOKENS, OUTPUT_TOKENS, ServerFigures, added, figures
from toolkit.monitoring.scraping import Scrape, scrape
from toolkit.specs.machine import GpuUse

EVERY_S = 1.0
#: Where no server says which GPUs it has: a GPU with so much in its memory is taken for one of its.
MIN_OCCUPIED_BYTES = 1 << 30

Sample = dict[str, Any]
ReadGpus = Callable[[], Sequence[GpuUse]]


class Observer:
    """Reads a server's metrics from `start` to `stop`; a server that cannot be read gives no samples, and says why."""

    def __init__(
        self,
        url: str,
        *,
        read: Callable[[str], Scrape] = scrape,
        read_gpus: ReadGpus | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self._url, self._read, self._read_gpus, self._every_s = url, read, read_gpus, every_s
        self._samples: list[Sample] = []
        self._scrapes: list[Scrape] = []  # the first and the last
        self._gpus: list[tuple[GpuUse, ...]] = []  # as well
        self._problem = ""
        self._started = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="server metrics", daemon=True)

    @property
    def latest(self) -> Sample | None:
        """Return what was seen last."""
        return self._samples[-1] if self._samples else None

    def start(self) -> None:
        """Look once, then go on in a thread; does nothing where there is nothing to look at."""
        self._started = time.monotonic()
        if self._url or self._read_gpus:
            self._look()
            self._thread.start()

    def stop(self) -> dict[str, Any]:
        """Look a last time, and return what was seen."""
        self._is_over.set()
        if self._url or self._read_gpus:
            self._thread.join(timeout=10)
            self._look()
        return {
            "url": self._url,
            "problem": self._problem,
            "samples": self._samples,
            "peak": peak(self._samples),
            "counts": self._counts(),
            "gpus": [{"uuid": gpu.uuid, "title": gpu.title} for gpu in (self._gpus or [()])[0]],
            "energy": energy.used(self._samples, self._gpus),
        }

    def _watch(self) -> None:
        while not self._is_over.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        now: Scrape | None = None
        if self._url:
            try:
                now = self._read(self._url)
            except TrtkError as error:
                self._problem = str(error)
        gpus = self._server_gpus(now)
        if now is None and not gpus:
            return
        seen = now or Scrape(taken_at_s=time.monotonic(), kinds={}, samples=())
        before = self._scrapes[-1] if now is not None and self._scrapes else None
        self._samples.append(sample(figures(seen, before), seen.taken_at_s - self._started, gpus=gpus))
        if now is not None:
            self._scrapes[1:] = [now]
        if gpus:
            self._gpus[1:] = [gpus]

    def _server_gpus(self, now: Scrape | None) -> tuple[GpuUse, ...]:
        """Return this machine's GPUs that the server computes on: those it names itself, where it has metrics."""
        if self._read_gpus is None or (self._url and now is None):
            return ()
        found = self._read_gpus()
        if self._gpus:
            known = {gpu.uuid for gpu in self._gpus[0]}
        elif now is None:
            known = {gpu.uuid for gpu in found if (gpu.memory_used_bytes or 0) >= MIN_OCCUPIED_BYTES}
        else:
            known = {one.labels["gpu_uuid"] for one in now.samples if "gpu_uuid" in one.labels}
        return tuple(gpu for gpu in found if gpu.uuid in known)

    def _counts(self) -> dict[str, float | None] | None:
        """Return what the engine counted between the first look and the last; null where it does not count."""
        if len(self._scrapes) < 2:
            return None
        first, last = self._scrapes
        return {
            "requests": added(last, first, OUTPUT_TOKENS.replace("_sum", "_count")),
            "input_tokens": added(last, first, INPUT_TOKENS),
            "output_tokens": added(last, first, OUTPUT_TOKENS),
        }


def sample(seen: ServerFigures, at_s: float, *, gpus: Sequence[GpuUse] = ()) -> Sample:
    """Return what a load test keeps of a look at the server; None is what it does not export."""
    engines = seen.engines
    cards = gpus or seen.gpus
    return {
        "t_s": round(at_s, 3),
        "requests_active": _sum(engine.requests_active for engine in engines),
        "requests_waiting": _sum(engine.requests_waiting for engine in engines),
        "requests_max": _sum(engine.requests_max for engine in engines),
        "kv_fraction": max((e.kv_fraction for e in engines if e.kv_fraction is not None), default=None),
        "kv_blocks_used": _sum(engine.kv_blocks_used for engine in engines),
        "output_tokens_per_s": _sum(engine.output_tokens_per_s for engine in engines),
        "cpu_utilization": seen.cpu_utilization,
        "memory_used_bytes": seen.memory_used_bytes,
        "gpu_utilization": max((gpu.utilization for gpu in cards if gpu.utilization is not None), default=None),
        "gpu_memory_used_bytes": _sum(gpu.memory_used_bytes for gpu in cards),
        "gpu_power_w": _sum(gpu.power_w for gpu in cards),
    }


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def peak(samples: Sequence[Mapping[str, Any]]) -> Sample:
    """Return the highest value of each figure."""
    names = [name for name in (samples[0] if samples else {}) if name != "t_s"]
    return {name: max((one[name] for one in samples if one[name] is not None), default=None) for name in names}
