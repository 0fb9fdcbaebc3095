"""The 80 % rule, `--slo 80-percent`: p95 within 1.5 s at four fifths of the requests that a server takes at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit.cli import output
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from toolkit.specs import LoadProfile

REQUESTS_PER_SLOT = 10


def applied(profile: LoadProfile, options: Mapping[str, Any]) -> LoadProfile:
    """Return the profile with the load that the rule means, where an objective is the rule; else as it is."""
    from toolkit.bench import slo

    if slo.HEADROOM not in {text.strip().lower() for text in options["slos"]}:
        return profile
    if profile.is_open:
        raise UsageError(
            f"--slo {slo.HEADROOM} is about requests in flight, not about a rate.",
            hint="Leave --rate and --trace out; --concurrency is the most that the server is to take.",
        )
    most = options["concurrency"] or _places(profile.metrics_url)
    slots = max(1, math.floor(slo.HEADROOM_SHARE * most + 1e-9))
    output.note(f"80 % of {most} in flight: {slots}.")
    return dataclasses.replace(
        profile,
        concurrency=slots,
        requests=options["requests"] or (None if options["duration"] else REQUESTS_PER_SLOT * slots),
        warmup_requests=slots if options["warmup"] is None else options["warmup"],
    )


def _places(metrics_url: str) -> int:
    """Return how many requests the server works on at a time, as it says itself."""
    from toolkit.monitoring import figures, scrape

    engines = figures(scrape(metrics_url)).engines if metrics_url else ()
    places = sum(engine.requests_max or 0 for engine in engines)
    if not places:
        raise UsageError(
            "80 % of what? The server does not say how many requests it takes at a time.",
            hint="Give the most that it is to take with --concurrency.",
        )
    return int(places)
