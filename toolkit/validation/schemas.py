"""The schemas of custom resources that are held here, and what is wrong with an object by them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit import deploy
from toolkit.validation import built_in
from toolkit.validation.folder import KubernetesObject
from toolkit.validation.shapes import mapping
from toolkit.validation.validator import Problem

SCHEMAS = Path(deploy.__file__).parent / "schemas"
#: In a schema: here stands a pod (`spec`, `template`), which Kubernetes' own schema judges, but for these keys.
POD, NOT_OF_THE_POD = "x-pod", "x-not-of-the-pod"


def known() -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return the schemas of custom resources by (apiVersion, kind)."""
    return {
        (api_version, kind): schema
        for path in sorted(SCHEMAS.glob("*.json"))
        for schema in [json.loads(path.read_text(encoding="utf-8"))]
        for api_version, kind in _kinds(schema)
    }


def _kinds(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    properties = schema.get("properties", {})
    for api_version in _values(properties.get("apiVersion", {})):
        for kind in _values(properties.get("kind", {})):
            yield api_version, kind


def _values(schema: Mapping[str, Any]) -> list[str]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def problems(one: KubernetesObject, schema: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what a schema finds in an object, and what Kubernetes' own finds in its pods."""
    import jsonschema

    validator = jsonschema.validators.validator_for(schema)(schema)
    for error in sorted(validator.iter_errors(one.document), key=lambda found: list(map(str, found.path))):
        where = ".".join(str(step) for step in error.absolute_path)
        yield Problem(place=f"{one.place} {where}".strip(), says=error.message)
    for where, spec in _pods(schema, one.document, schema, ""):
        yield from built_in.pod_problems(spec, f"{one.place} {where}")


def _pods(schema: Mapping[str, Any], value: Any, root: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """Walk schema and value side by side; yield (path, spec) of every pod."""
    if "$ref" in schema:
        schema = {**_resolved(schema["$ref"], root), **schema}
    if isinstance(value, Mapping):
        if schema.get(POD):
            is_template = schema[POD] == "template"
            spec = mapping(value.get("spec")) if is_template else value
            kept = {key: inner for key, inner in spec.items() if key not in schema.get(NOT_OF_THE_POD, ())}
            yield (f"{where}.spec" if is_template else where), kept
            return
        for key, inner in schema.get("properties", {}).items():
            if key in value:
                yield from _pods(inner, value[key], root, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            yield from _pods(schema["items"], inner, root, f"{where}.{index}")


def _resolved(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    made: Mapping[str, Any] = found
    return made
