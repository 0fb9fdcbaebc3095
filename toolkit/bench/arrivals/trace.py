"""Open loop, replayed: requests come when they came."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.bench.session import Arrival
from toolkit.specs import LoadProfile


def due_times(profile: LoadProfile) -> Iterator[float | None]:
    """Yield the trace's own times, once."""
    return (row.due_s for row in profile.trace)


ARRIVAL = Arrival(name="trace", title="open loop: the times of a trace", due_times=due_times)
