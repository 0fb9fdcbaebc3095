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
        metadata = value.get("metadata")
        own = metadata.get("labels") if isinstance(metadata, Mapping) else None
        for key, inner in value.items():
            inner_labels = own if key == "spec" and isinstance(own, Mapping) else {}
            yield from _below(inner, f"{place} {key}" if " spec" not in place else f"{place}.{key}", inner_labels)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _below(inner, f"{place}[{index}]", {})
