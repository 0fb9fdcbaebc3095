"""Open loop, Poisson: independent users."""

from __future__ import annotations

import random
from collections.abc import Iterator

from toolkit.bench import pacing
from toolkit.bench.session import Arrival
from toolkit.specs import LoadProfile


def due_times(profile: LoadProfile) -> Iterator[float | None]:
    """Yield times with exponential gaps."""
    dice = random.Random(f"arrivals/{profile.seed}")
    return pacing.due_times(profile.stages, iter(lambda: dice.expovariate(1.0), None))


ARRIVAL = Arrival(name="poisson", title="open loop: Poisson arrivals at a rate", due_times=due_times)
