"""Kubernetes' own schemas: of whole objects, and of the pods that custom resources carry."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.validation.validator import Problem


def is_installed() -> bool:
    """Whether there are schemas to hold anything to."""
    return importlib.util.find_spec("kubernetes_validate") is not None


def problems(document: Mapping[str, Any], place: str) -> Iterator[Problem]:
    """Yield what the newest version's schema finds; a kind that it does not know is a problem."""
    import kubernetes_validate

    if not (isinstance(document.get("apiVersion"), str) and isinstance(document.get("kind"), str)):
        yield Problem(place=place, says="apiVersion and kind have to be text")
        return
    version = kubernetes_validate.latest_version()
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(str(step) for step in error.path)
        yield Problem(place=f"{place} {where}".strip(), says=error.message)
    except kubernetes_validate.SchemaNotFoundError:
        # The library's own program warns here and ends with 0: a kind that was removed would pass.
        yield Problem(
            place=place,
            says=f"Kubernetes {version} has no {document.get('kind')} in {document.get('apiVersion')}, "
            "and no schema here describes one",
        )


def pod_problems(spec: Mapping[str, Any], place: str) -> Iterator[Problem]:
    """Yield what is wrong with a pod's spec that stands in something else."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": {"containers": [], **spec}}
    for one in problems(pod, place):
        yield Problem(place=one.place.replace(f"{place} spec", place, 1), says=one.says)
