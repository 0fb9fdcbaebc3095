"""promql-parser: every query of a dashboard and of an autoscaler, and whether somebody exports what it reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from toolkit import monitoring
from toolkit.validation.folder import Folder
from toolkit.validation.shapes import mapping, mappings
from toolkit.validation.validator import Outcome, Problem, Validator, not_installed, outcome

#: Grafana puts values in their place before Prometheus sees a query.
VARIABLES = {"$__rate_interval": "1m", "$__interval": "1m", "$__range": "1h"}


def run(folder: Folder) -> Outcome:
    """Parse every query."""
    queries = [*_of_dashboards(folder), *_of_scalers(folder)]
    if not queries:
        return Outcome()
    try:
        import promql_parser
    except ModuleNotFoundError:
        return not_installed("promql-parser", "pip install 'trtk[deploy]'")

    def found() -> Iterator[Problem]:
        for place, query in queries:
            try:
                promql_parser.parse(_plain(query))
            except ValueError as error:
                yield Problem(place=place, says=f"{error}: {query}")
                continue
            unknown = [one.name for one in monitoring.selectors(query) if one.name not in exported | recorded]
            if unknown:
                yield Problem(place=place, says=f"nobody exports {', '.join(unknown)}: {query}")

    exported, recorded = monitoring.every_name(), _recorded(folder)
    return outcome(len(queries), found(), unit="queries")


def _recorded(folder: Folder) -> set[str]:
    """Return what the folder's own rules record."""
    groups = [mapping(one.content).get("groups") for one in folder.documents]
    objects = [one.document for one in folder.all_objects if one.kind == "PrometheusRule"]
    groups += [mapping(one.get("spec")).get("groups") for one in objects]
    rules = [rule for listed in groups for group in mappings(listed) for rule in mappings(group.get("rules"))]
    return {str(rule["record"]) for rule in rules if "record" in rule}


def _of_dashboards(folder: Folder) -> Iterator[tuple[str, str]]:
    for name in folder.named("*.json"):
        try:
            document = json.loads(folder.text(name))
        except (ValueError, RecursionError):
            continue  # the json validator says so
        if isinstance(document, dict) and isinstance(document.get("panels"), list):
            yield from ((name, query) for query in _expressions(document["panels"]))


def _of_scalers(folder: Folder) -> Iterator[tuple[str, str]]:
    for one in folder.all_objects:
        triggers = mapping(one.document.get("spec")).get("triggers") if one.kind == "ScaledObject" else ()
        for trigger in mappings(triggers):
            if trigger.get("type") == "prometheus":
                yield one.place, str(mapping(trigger.get("metadata")).get("query", ""))


def _expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("expr"), str):
            yield value["expr"]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _expressions(one)


def _plain(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return re.sub(r"\$\{?\w+\}?", ".*", query)


VALIDATOR = Validator(name="promql-parser", title="queries of dashboards and autoscalers", order=51, run=run)
