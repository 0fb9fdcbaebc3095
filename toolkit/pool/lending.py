"""One model of a pool as it is now, and who waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import TrtkError
from toolkit.pool import decisions
from toolkit.pool.config import PooledModel
from toolkit.pool.decisions import FAILED, READY, UNLOADED

GIB = decisions.GIB
#: Of a load that was never seen: the processes start, and then its bytes are read and compiled.
START_S, BYTES_PER_S = 4.0, 300 << 20
FIRST_RETRY_S, LAST_RETRY_S = 2.0, 300.0


class NotHad(TrtkError):
    """A model cannot be had now."""

    exit_code = 6

    def __init__(self, sentence: str, *, retry_after_s: float) -> None:
        super().__init__(sentence)
        self.retry_after_s = max(1.0, retry_after_s)


@dataclass(eq=False)
class Waiter:
    """A request that waits for its model."""

    since: float
    turn: asyncio.Future[None]
    key: str = ""  # whose it is


@dataclass(eq=False)
class Entry:
    """One model: what it is, what was measured of it, who uses it and who waits."""

    model: PooledModel
    state: str = UNLOADED
    in_flight: int = 0
    waiting: deque[Waiter] = field(default_factory=deque)
    is_draining: bool = False
    resident_since: float = 0.0
    last_used_at: float = 0.0  # seconds since 1970
    worth: float = 0.0
    loads: int = 0
    served: int = 0  # since it was loaded
    failures: int = 0  # in a row
    retry_at: float = 0.0
    problem: str = ""
    load_began: float = 0.0
    load_s: float = 0.0  # the last cold start; 0: none was seen
    base_bytes: int = 0  # measured right after loading
    now_bytes: int = 0
    peak_bytes: int = 0  # the most that was ever measured, loading included
    is_known_at_work: bool = False  # the peak is one of a model that did enough to have taken what it takes
    pids: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """What clients call it."""
        return self.model.name

    @property
    def size_bytes(self) -> int:
        """Return what it is charged with: as computed, corrected by what was measured of it at work.

        A model grows while it works, and its cache while tokens fill it: only a whole stay in memory, with enough
        requests, can prove that it takes less than computed, and the cache is added to that.
        """
        size = self.model.size
        if not self.is_known_at_work:
            return max(size.total_bytes, self.peak_bytes)
        return max(self.peak_bytes, min(size.total_bytes, self.peak_bytes + size.kv_bytes + size.activation_bytes))

    @property
    def cold_start_s(self) -> float:
        """Return how long a load takes: as the last one did, else guessed from its size."""
        weights = self.model.size.weights_bytes
        return self.load_s or START_S + weights / BYTES_PER_S

    @property
    def lends(self) -> bool:
        """Whether a request may use it now."""
        return self.state == READY and not self.is_draining

    def as_decided(self) -> decisions.Model:
        """Return what decisions are made of."""
        return decisions.Model(
            name=self.name,
            size_bytes=self.size_bytes,
            state=self.state,
            in_flight=self.in_flight,
            waiting_since=self.waiting[0].since if self.waiting else None,
            resident_since=self.resident_since,
            worth=self.worth,
            is_pinned=self.model.is_pinned,
            is_draining=self.is_draining,
            retry_at=self.retry_at,
        )

    def take(self, *, floor: float, at: float) -> None:
        """Count a request that uses it."""
        self.in_flight += 1
        self.served += 1
        self.last_used_at = at
        self.worth = decisions.worth(floor, load_s=self.cold_start_s, size_bytes=self.size_bytes)

    def fail_waiting(self, error: NotHad) -> int:
        """Turn everybody away who waits; return how many did."""
        count = len(self.waiting)
        for waiter in self.waiting:
            if not waiter.turn.done():
                waiter.turn.set_exception(error)
        self.waiting.clear()
        return count

    def failed(self, sentence: str, *, now: float) -> float:
        """Note that it could not be loaded; return for how long nobody tries again."""
        self.failures += 1
        pause_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self.failures - 1, 10))
        self.state, self.problem, self.retry_at = FAILED, sentence, now + pause_s
        return pause_s

    def shown(self) -> dict[str, Any]:
        """Return what `trtk ps` shows of it."""
        return {
            "name": self.name,
            "state": "draining" if self.is_draining else self.state,
            "is_pinned": self.model.is_pinned,
            "size_bytes": self.size_bytes,
            "weights_bytes": self.model.size.weights_bytes,
            "kv_bytes": self.model.size.kv_bytes,
            "kv_tokens": self.model.kv_tokens,
            "measured_bytes": self.now_bytes,
            "peak_bytes": self.peak_bytes,
            "in_flight": self.in_flight,
            "waiting": len(self.waiting),
            "last_used_at": round(self.last_used_at, 3),
            "loads": self.loads,
            "cold_start_s": round(self.load_s, 2),
            "problem": self.problem,
        }
