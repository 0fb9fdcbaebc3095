"""Which series there are to read: seen in a scrape, or known of what will be served."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import UnknownName
from toolkit.monitoring.scraping import Scrape
from toolkit.registry import toml_document

#: What Prometheus has without being told.
ALWAYS = "up"
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}
#: A metric's name begins like this in every expression of ours; functions and labels do not.
SELECTOR = re.compile(r"(?<![\w:])((?:nv_|trtk_|trtk:|DCGM_)[\w:]+|up(?!\w))\s*(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, kw_only=True)
class Selector:
    """One metric that an expression reads, with (label, operator, value) of what it asks of its labels."""

    name: str
    matchers: tuple[tuple[str, str, str], ...] = ()

    def __str__(self) -> str:
        inside = ", ".join(f'{label}{operator}"{value}"' for label, operator, value in self.matchers)
        return f"{self.name}{{{inside}}}" if inside else self.name


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The names of the series, each with the values of the label that tells them apart where it has one."""

    series: Mapping[str, frozenset[str]]

    def has(self, selector: Selector) -> bool:
        """Whether the expression finds something to read; labels that come with traffic are not asked about."""
        if selector.name not in self.series:
            return False
        label, values = telling_label(selector.name), self.series[selector.name]
        asked = [(operator, value) for name, operator, value in selector.matchers if name == label]
        return all(
            value in values if operator == "=" else any(re.fullmatch(value, one) for one in values)
            for operator, value in asked
            if operator in {"=", "=~"}
        )

    def missing(self, expression: str) -> tuple[Selector, ...]:
        """Return what an expression reads and nobody exports."""
        return tuple(one for one in selectors(expression) if not self.has(one))

    def with_names(self, names: Iterable[str]) -> Exported:
        """Return this and further series, such as those that rules record."""
        return Exported(series={**self.series, **dict.fromkeys(names, frozenset[str]())})


def selectors(expression: str) -> tuple[Selector, ...]:
    """Return the metrics that an expression of ours reads."""
    return tuple(
        Selector(name=found[1], matchers=tuple(MATCHER.findall(found[2] or "")))
        for found in SELECTOR.finditer(expression)
    )


def seen(scrapes: Iterable[Scrape]) -> Exported:
    """Return what was exported when it was looked at."""
    series: dict[str, set[str]] = {ALWAYS: set()}
    for scrape in scrapes:
        for family, kind in scrape.kinds.items():
            for suffix in SUFFIXES.get(kind, ("",)):
                series.setdefault(f"{family}{suffix}", set())
        for one in scrape.samples:
            label = telling_label(one.name)
            series.setdefault(one.name, set()).update([one.labels[label]] if label in one.labels else [])
    return Exported(series={name: frozenset(values) for name, values in series.items()})


def known(targets: Iterable[str], release: str) -> Exported:
    """Return what these targets of a release export when nothing but defaults is set: no family that needs a flag."""
    document = _document()
    series: dict[str, frozenset[str]] = {ALWAYS: frozenset()}
    for target in targets:
        if target not in document["targets"]:
            raise UnknownName("kind of target", target, document["targets"])
        for group in document["targets"][target]:
            for name, family in document["groups"][group].items():
                if "flag" not in family and family.get("since", "") <= release:
                    for suffix in SUFFIXES.get(family["kind"], ("",)):
                        series[f"{name}{suffix}"] = frozenset(family.get("values", ()))
    return Exported(series=series)


def every_name() -> frozenset[str]:
    """Return every series that any exporter has, with every flag set."""
    families = [(name, family) for group in _document()["groups"].values() for name, family in group.items()]
    return frozenset(
        {ALWAYS} | {f"{name}{suffix}" for name, family in families for suffix in SUFFIXES.get(family["kind"], ("",))}
    )


def telling_label(name: str) -> str:
    """Return the label whose values are fixed and tell a family's series apart; empty where it has none."""
    for group in _document()["groups"].values():
        if name in group:
            return str(group[name].get("label", ""))
    return ""


@functools.cache
def _document() -> Mapping[str, Any]:
    return toml_document(Path(__file__).parent / "families.toml")
