"""The pod templates of Kubernetes objects, wherever a kind keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.validation.folder import KubernetesObject


@dataclass(frozen=True, kw_only=True)
class Pod:
    """One pod template: where it stands, its labels, its spec."""

    place: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    def containers(self) -> Iterator[Mapping[str, Any]]:
        """Yield containers and init containers."""
        for key in ("initContainers", "containers"):
            yield from (one for one in self.spec.get(key) or () if isinstance(one, Mapping))


def pods_of(one: KubernetesObject) -> tuple[Pod, ...]:
    """Return the pod templates in an object: whatever has containers, at any depth."""
    return tuple(_below(one.document, one.place, {}))


def _below(value: Any, place: str, labels: Mapping[str, str]) -> Iterator[Pod]:
    if isinstance(value, Mapping):
        if isinstance(value.get("containers"), list):
            yield Pod(place=place, labels=labels, spec=value)
        for key, inner in value.items():
            inner_labels = _labels_for(key, value)
            yield from _below(inner, f"{place} {key}" if " spec" not in place else f"{place}.{key}", inner_labels)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _below(inner, f"{place}[{index}]", {})


def _labels_for(key: str, value: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the labels of a pod below KEY: those beside a template's spec, or KServe's beside the pod itself."""
    metadata = value.get("metadata")
    found = value.get("labels") if key in {"template", "worker"} else None
    if key == "spec" and isinstance(metadata, Mapping):
        found = metadata.get("labels")
    return found if isinstance(found, Mapping) else {}
