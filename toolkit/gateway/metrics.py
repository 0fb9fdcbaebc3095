"""What the gateway counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

#: Of TTFT and whole answers, in seconds.
TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
DURATION_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
PREFIX = "trtk_gateway"
#: In place of names that clients made up: a label for each would fill the memory.
NO_MODEL = "none"


class Metrics:
    """A registry of its own: nothing of the process or of other libraries is in it."""

    def __init__(self, *, running: Callable[[], float], waiting: Callable[[], float]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nothing here reads
        self.registry = made = CollectorRegistry()
        self.requests = Counter(
            f"{PREFIX}_requests", "Requests by outcome.", ("endpoint", "model", "outcome", "status"), registry=made
        )
        self.tokens = Counter(
            f"{PREFIX}_tokens", "Tokens read (input) and made (output).", ("model", "kind"), registry=made
        )
        self.ttft = Histogram(
            f"{PREFIX}_time_to_first_token_seconds",
            "From a request's last byte to the first text of its answer.",
            ("model",),
            buckets=TTFT_BUCKETS,
            registry=made,
        )
        self.duration = Histogram(
            f"{PREFIX}_request_duration_seconds",
            "From a request's last byte to the end of its answer.",
            ("model",),
            buckets=DURATION_BUCKETS,
            registry=made,
        )
        in_flight = Gauge(f"{PREFIX}_requests_in_flight", "Requests that Triton works on.", registry=made)
        in_flight.set_function(running)
        queued = Gauge(f"{PREFIX}_requests_waiting", "Requests that wait for a place.", registry=made)
        queued.set_function(waiting)

    def text(self) -> bytes:
        """Return the exposition."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)
