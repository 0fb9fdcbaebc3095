"""Open loop, evenly spaced: a request is due whether or not the server kept up."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from toolkit.bench import pacing
from toolkit.bench.session import Arrival
from toolkit.specs import LoadProfile


def due_times(profile: LoadProfile) -> Iterator[float | None]:
    """Yield evenly spaced times, the first after one gap."""
    return pacing.due_times(profile.stages, itertools.repeat(1.0))


ARRIVAL = Arrival(name="constant", title="open loop: evenly spaced at a rate", due_times=due_times)
