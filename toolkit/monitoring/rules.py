"""Recording and alerting rules: those of rules.toml whose series exist, each with why another was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.monitoring.exported import Exported, selectors
from toolkit.registry import toml_document
from toolkit.specs import from_json


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A query that Prometheus keeps the answers of."""

    record: str
    expr: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series, and what an alert must do AT minutes later: fire with these labels and this summary, or be quiet."""

    series: Mapping[str, str]
    at: int
    labels: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """When to tell somebody, what, and what to do then."""

    alert: str
    expr: str
    for_: str
    severity: str
    summary: str
    action: str
    fires: Case
    quiet: Case
    needs: tuple[str, ...] = ()  # metrics that must exist though the expression does not read them


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Something that is not written because nobody exports what it reads."""

    what: str
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is written, and what is not."""

    recordings: tuple[Recording, ...]
    alerts: tuple[Alert, ...]
    left_out: tuple[LeftOut, ...]
    exported: Exported  # with what the rules record


def everything() -> tuple[tuple[Recording, ...], tuple[Alert, ...]]:
    """Return every rule that there is."""
    document = toml_document(Path(__file__).parent / "rules.toml")
    recordings = tuple(from_json(Recording, one) for one in document["record"])
    alerts = tuple(from_json(Alert, {**one, "for_": one["for"]}) for one in document["alert"])
    return recordings, alerts


def chosen(exported: Exported) -> Rules:
    """Return the rules that have something to read; a rule may read what an earlier one records."""
    recordings, alerts = everything()
    kept: list[Recording] = []
    left_out: list[LeftOut] = []
    for one in recordings:
        if not exported.missing(one.expr):
            kept.append(one)
            exported = exported.with_names([one.record])
    kept_alerts: list[Alert] = []
    for alert in alerts:
        missing = [*exported.missing(alert.expr), *(one for name in alert.needs for one in exported.missing(name))]
        if missing:
            causes = {str(one) for name in missing for one in _causes(name.name, str(name), recordings, exported)}
            left_out.append(LeftOut(what=f"alert {alert.alert}", missing=tuple(sorted(causes))))
        else:
            kept_alerts.append(alert)
    return Rules(recordings=tuple(kept), alerts=tuple(kept_alerts), left_out=tuple(left_out), exported=exported)


def _causes(name: str, shown: str, recordings: tuple[Recording, ...], exported: Exported) -> list[str]:
    """Return what is missing behind a recorded name, or the name itself."""
    recording = next((one for one in recordings if one.record == name), None)
    if recording is None:
        return [shown]
    return [
        cause
        for one in selectors(recording.expr)
        if not exported.has(one)
        for cause in _causes(one.name, str(one), recordings, exported)
    ]
