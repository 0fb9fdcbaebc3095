"""Manifests as a Helm chart: the same texts, with the places that people change made values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: What stands for the release's own name and namespace in manifests that are rendered for a chart.
NAME, NAMESPACE = "trtk-release-name", "trtk-space-of-release"
RELEASE = {NAME: "{{ .Release.Name }}", NAMESPACE: "{{ .Release.Namespace }}"}
SEPARATOR = re.compile(r"^---[ \t]*(?:#.*)?\n", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place in manifests that becomes a value."""

    value: str  # autoscaling.maxReplicas
    help: str
    path: str  # regular expression of a path: spec/template/spec/containers/\d+/image
    schema: Mapping[str, Any]
    kinds: tuple[str, ...] = ()  # of the objects; empty: any
    same_as: str = ""  # only where the scalar is what is known by this name


@dataclass(frozen=True, kw_only=True)
class Switch:
    """An object that a cluster can do without."""

    value: str  # objects.podMonitor
    kind: str
    help: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Templates by name, the values that they read and what each means."""

    templates: Mapping[str, str]
    values: Mapping[str, Any]
    schema: Mapping[str, Any]
    helps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Place:
    start: int
    end: int
    text: str


def chart(
    manifests: Mapping[str, str], slots: tuple[Slot, ...], switches: tuple[Switch, ...], *, known: Mapping[str, str]
) -> Chart:
    """Return the chart of manifests that were rendered for the release NAME in NAMESPACE."""
    found: dict[str, Any] = {}
    slots = tuple(dataclasses.replace(slot, same_as=known.get(slot.same_as, "")) for slot in slots)
    templates = {
        name: _separated([_document(part, slots, switches, found) for part in SEPARATOR.split(text) if part.strip()])
        for name, text in manifests.items()
    }
    meant = {one.value: (one.help, one.schema) for one in slots}
    meant |= {one.value: (one.help, {"type": "boolean"}) for one in switches}
    used = {name: meant[name] for name in sorted(found)}
    return Chart(
        templates=templates,
        values=_nested({name: found[name] for name in used}),
        schema=_schema(used),
        helps={name: help for name, (help, _) in used.items()},
    )


def _separated(parts: list[str]) -> str:
    return "---\n".join(parts)


def _document(text: str, slots: tuple[Slot, ...], switches: tuple[Switch, ...], found: dict[str, Any]) -> str:
    import yaml

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    kind = next((value.value for key, value in root.value if key.value == "kind"), "")
    places = []
    for path, node in _scalars(root, ""):
        for slot in slots:
            if not _is_in(slot, kind, path, node.value):
                continue
            value = yaml.SafeLoader("").construct_object(node)
            if found.setdefault(slot.value, value) == value:
                places.append(_Place(start=node.start_mark.index, end=node.end_mark.index, text=_expression(slot)))
            break
    made = _replaced(text, places)
    for switch in switches:
        if switch.kind == kind:
            found[switch.value] = True
            made = f"{{{{- if .Values.{switch.value} }}}}\n{made.rstrip()}\n{{{{- end }}}}\n"
    return made


def _is_in(slot: Slot, kind: str, path: str, text: str) -> bool:
    if slot.kinds and kind not in slot.kinds:
        return False
    return bool(re.fullmatch(slot.path, path)) and slot.same_as in {"", text}


def _scalars(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if node.id == "scalar":
        yield path.lstrip("/"), node
    elif node.id == "sequence":
        for index, item in enumerate(node.value):
            yield from _scalars(item, f"{path}/{index}")
    else:
        for key, value in node.value:
            yield from _scalars(value, f"{path}/{key.value}")


def _expression(slot: Slot) -> str:
    # Helm reads every number as a float, and would write a large one with an exponent.
    how = "int" if slot.schema["type"] == "integer" else "quote"
    return f"{{{{ .Values.{slot.value} | {how} }}}}"


def _replaced(text: str, places: list[_Place]) -> str:
    made, end = "", 0
    for place in sorted(places, key=lambda place: place.start):
        made += _literal(text[end : place.start]) + place.text
        end = place.end
    return made + _literal(text[end:])


def _literal(text: str) -> str:
    """Return text that Helm leaves as it is, apart from the release's name and namespace."""
    escaped = text.replace("{{", '{{ "{{" }}')
    for stand_in, expression in RELEASE.items():
        escaped = escaped.replace(stand_in, expression)
    return escaped


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in values.items():
        *folders, last = name.split(".")
        inner = made
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = value
    return made


def _schema(known: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    made = _object()
    # Helm hands it to every chart.
    made["properties"]["global"] = {"type": "object"}
    for name, (help, schema) in known.items():
        *folders, last = name.split(".")
        inner = made
        for folder in folders:
            inner = inner["properties"].setdefault(folder, _object())
        inner["properties"][last] = {"description": help, **schema}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **made}


def _object() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}
