"""Open loop, gamma: gaps as uneven as one likes."""

from __future__ import annotations

import random
from collections.abc import Iterator

from toolkit.bench import pacing
from toolkit.bench.session import Arrival
from toolkit.specs import LoadProfile


def due_times(profile: LoadProfile) -> Iterator[float | None]:
    """Yield times whose gaps have the coefficient of variation that the profile calls burstiness."""
    dice = random.Random(f"arrivals/{profile.seed}")
    shape = profile.burstiness**-2
    return pacing.due_times(profile.stages, iter(lambda: dice.gammavariate(shape, 1 / shape), None))


ARRIVAL = Arrival(name="gamma", title="open loop: gamma gaps, burstier or smoother than Poisson", due_times=due_times)
