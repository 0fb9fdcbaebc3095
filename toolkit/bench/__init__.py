"""The load tester: `run` is the only clock and network, `summarise` is pure, `write` makes the report's files."""

from __future__ import annotations

from urllib.parse import urlsplit

from toolkit import registry
from toolkit.bench import client, loops
from toolkit.bench.machine import collect as environment
from toolkit.bench.observing import ReadGpus
from toolkit.bench.report import write
from toolkit.bench.runs import Run, Snapshot, Watch, unwatched
from toolkit.bench.session import Arrival, Protocol
from toolkit.bench.summary import summarise
from toolkit.errors import UsageError
from toolkit.specs import LoadProfile, Progress, no_progress

__all__ = ["Run", "Snapshot", "Watch", "environment", "known_arrivals", "known_protocols", "run", "summarise", "write"]


def known_protocols() -> dict[str, Protocol]:
    """Return the protocols by URL scheme."""
    return registry.by_name(
        registry.entries_in("toolkit.bench.protocols", "PROTOCOL", Protocol), lambda entry: entry.schemes
    )


def known_arrivals() -> dict[str, Arrival]:
    """Return the load shapes by name."""
    return registry.by_name(
        registry.entries_in("toolkit.bench.arrivals", "ARRIVAL", Arrival), lambda entry: (entry.name,)
    )


def run(
    profile: LoadProfile,
    *,
    on_progress: Progress = no_progress,
    watch: Watch = unwatched,
    read_gpus: ReadGpus | None = None,
) -> Run:
    """Send the load and return what happened; raise ServerError when there is no server to begin with."""
    check(profile)
    url = urlsplit(profile.url)
    protocol = registry.pick(known_protocols(), url.scheme, kind="protocol")
    arrival = registry.pick(known_arrivals(), profile.arrival, kind="load shape")
    about = client.Client(profile, report=on_progress, watch=watch, read_gpus=read_gpus)
    return loops.run(client.measured(about, protocol, arrival))


def check(profile: LoadProfile) -> None:
    """Refuse a profile that says nothing or twice."""
    if (profile.requests is None) == (profile.duration_s is None):
        raise UsageError(
            "A load test stops after a number of requests or after a duration.", hint="Give one of the two."
        )
    registry.pick(known_arrivals(), profile.arrival, kind="load shape")
    if (profile.arrival in {"constant", "poisson", "gamma"}) != bool(profile.stages):
        raise UsageError(
            f"The load shape {profile.arrival} and {len(profile.stages)} rates do not go together.",
            hint="An open loop has a rate, a closed loop and a trace have none.",
        )
    if profile.is_capped and profile.processes > 1:
        raise UsageError(
            f"{profile.processes} client processes cannot count together what is in flight.",
            hint="Leave out --concurrency beside --rate, or --processes.",
        )
    if profile.trace and profile.turns:
        raise UsageError("A trace says itself what is sent.", hint="Leave out --turns, or --trace.")
    if not _is_address(profile.url):
        raise UsageError(f"{profile.url!r} is not a URL.", hint="Write --url grpc://localhost:8001.")


def _is_address(text: str) -> bool:
    try:
        url = urlsplit(text)
        return bool(url.hostname) and url.port != 0
    except ValueError:
        return False
