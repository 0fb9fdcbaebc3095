"""One scrape: Prometheus text as families and samples."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from toolkit.errors import MissingError, ServerError

#: A server that is alive answers in milliseconds; a live view must not hang on one that is not.
TIMEOUT_S = 2.0
KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One series as it was when it was read."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, kw_only=True)
class Scrape:
    """What one exporter said; `taken_at_s` is a reading of the monotonic clock."""

    taken_at_s: float
    kinds: Mapping[str, str]  # family → counter, gauge, histogram, summary
    samples: tuple[Sample, ...]
    needs_key: bool = False  # it answers only those who have one

    def matching(self, name: str, **labels: str) -> tuple[Sample, ...]:
        """Return the samples of this name that carry these labels."""
        wanted = labels.items()
        return tuple(one for one in self.samples if one.name == name and wanted <= one.labels.items())

    def total(self, name: str, **labels: str) -> float | None:
        """Return the sum of the matching samples, None where there is none: absent is not zero."""
        found = self.matching(name, **labels)
        return sum(one.value for one in found) if found else None

    def models(self, name: str) -> tuple[str, ...]:
        """Return the models that have samples of this name."""
        return tuple(
            sorted({one.labels["model"] for one in self.samples if one.name == name and "model" in one.labels})
        )


def parse(text: str, *, taken_at_s: float = 0.0) -> Scrape:
    """Read Prometheus text; raises ValueError where it is none."""
    from prometheus_client.parser import text_string_to_metric_families

    kinds: dict[str, str] = {}
    samples: list[Sample] = []
    for family in text_string_to_metric_families(text):
        # The parser calls every counter's samples `_total`; Triton's are not, and Prometheus keeps what was exposed.
        is_renamed = family.type == "counter" and f"# TYPE {family.name} counter" in text
        kinds[family.name if is_renamed or family.type != "counter" else f"{family.name}_total"] = family.type
        for one in family.samples:
            name = one.name.removesuffix("_total") if is_renamed else one.name
            samples.append(Sample(name=name, labels=dict(one.labels), value=float(one.value)))
    return Scrape(taken_at_s=taken_at_s, kinds=kinds, samples=tuple(samples))


def scrape(url: str, *, timeout_s: float = TIMEOUT_S) -> Scrape:
    """Read an exporter over HTTP; one that wants a key gets the one in $OPENAI_API_KEY."""
    try:
        import httpx
        import prometheus_client  # noqa: F401 - asked for here, so that the hint comes before anything is drawn
    except ModuleNotFoundError as missing:
        raise MissingError(
            f"Reading metrics needs {missing.name}, which is not installed.", hint="pip install prometheus-client"
        ) from missing
    key, needs_key = os.environ.get(KEY_VARIABLE), False
    try:
        # A proxy of the environment must not see what goes to loopback.
        answer = httpx.get(url, timeout=timeout_s, trust_env=False)
        if answer.status_code == httpx.codes.UNAUTHORIZED and key:
            needs_key = True
            answer = httpx.get(url, timeout=timeout_s, trust_env=False, headers={"Authorization": f"Bearer {key}"})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerError(f"Nothing answers at {url}: {str(error).rstrip('.')}.", hint="See `trtk status`.") from error
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise MissingError(
            f"{url} lets nobody in without a key.", hint=f"Put one of its API keys into ${KEY_VARIABLE}."
        )
    if answer.status_code != httpx.codes.OK:
        raise ServerError(f"{url} answers with {answer.status_code}.", hint="See `trtk status` for the metrics' URL.")
    try:
        return replace(parse(answer.text, taken_at_s=time.monotonic()), needs_key=needs_key)
    except ValueError as error:
        raise ServerError(
            f"What {url} answers with are no Prometheus metrics.", hint="See `trtk status` for the metrics' URL."
        ) from error
