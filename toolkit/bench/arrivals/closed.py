"""Closed loop: every slot sends its next request when its last one ended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from toolkit.bench.session import Arrival
from toolkit.specs import LoadProfile


def due_times(profile: LoadProfile) -> Iterator[float | None]:
    """Yield None for ever: a free slot is the only clock."""
    del profile
    return itertools.repeat(None)


ARRIVAL = Arrival(name="closed", title="closed loop: so many requests in flight at all times", due_times=due_times)
