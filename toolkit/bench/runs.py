"""What a run measured, before anything is computed from it, and what can be seen while it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.specs import LoadProfile, RequestRecord


@dataclass(frozen=True, kw_only=True)
class Run:
    """The records of one run and the circumstances that its numbers depend on."""

    profile: LoadProfile
    records: tuple[RequestRecord, ...]
    started_at: str  # ISO 8601, UTC
    duration_s: float
    is_interrupted: bool = False
    stop_reason: str | None = None  # a sentence, when the run gave up before its end
    mean_in_flight: float = 0.0  # counted while the run went, not from the records
    client_cpu_s: float = 0.0
    client_processes: int = 1
    clock_at_start: float = 0.0  # a reading of the machine's monotonic clock, from which the records count
    is_input_counted: bool = True  # False: input_tokens are what was asked for
    server: Mapping[str, Any] = field(default_factory=dict)
    observed: Mapping[str, Any] = field(default_factory=dict)  # of observing.Observer
    input_s_per_token: float | None = None  # of requests that had the server for themselves; None: not measured


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one phase of a run came to."""

    records: tuple[RequestRecord, ...]
    duration_s: float  # until the last response ended
    busy_s: float  # of all requests in flight together, counted while it went
    clock_at_start: float  # a reading of the machine's monotonic clock, from which the records count
    cpu_s: float
    stop_reason: str | None = None
    is_interrupted: bool = False
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """How far a run is."""

    step: str  # warm-up, load test
    elapsed_s: float
    done: float  # requests, or seconds where the run has a duration
    total: float
    completed: int
    in_flight: int
    failed: int
    output_tokens: int
    ttft_p50_ms: float | None
    server: Mapping[str, Any] | None = None  # the last sample of its metrics

    @property
    def left_s(self) -> float | None:
        """Seconds left, if the rest goes like what is done."""
        return self.elapsed_s * (self.total - self.done) / self.done if self.done > 0 else None


Watch = Callable[[Snapshot], None]


def unwatched(snapshot: Snapshot) -> None:
    """Show nobody."""
