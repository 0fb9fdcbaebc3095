"""What objects say of one another: selectors find pods, ports exist, what is mounted is there, names stand once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.validation.folder import Folder, KubernetesObject
from toolkit.validation.pods import Pod, pods_of
from toolkit.validation.shapes import mapping, mappings
from toolkit.validation.validator import Outcome, Problem, Validator, outcome

#: Kinds whose selector must find pods of this folder → where it is below spec.
SELECTORS = {
    "Service": ("selector",),
    "Deployment": ("selector", "matchLabels"),
    "PodDisruptionBudget": ("selector", "matchLabels"),
    "PodMonitor": ("selector", "matchLabels"),
    "NetworkPolicy": ("podSelector", "matchLabels"),
    "InferencePool": ("selector", "matchLabels"),
}
#: Labels that a controller adds to the pods that it makes.
ADDED = ("leaderworkerset.sigs.k8s.io/",)


def run(folder: Folder) -> Outcome:
    """Follow every reference that stays inside the folder."""
    found = folder.all_objects
    pods = [pod for one in found for pod in pods_of(one)]
    makes_own_pods = not pods
    return outcome(
        len(found),
        [
            *_twice(found),
            *([] if makes_own_pods else _selectors(found, pods)),
            *_targets(found),
            *_ports(found, pods),
            *_mounts(found, pods),
        ],
        unit="objects",
    )


def _twice(found: tuple[KubernetesObject, ...]) -> Iterator[Problem]:
    counted = Counter((one.api_version, one.kind, _namespace(one), one.name) for one in found)
    for one in found:
        if counted[one.api_version, one.kind, _namespace(one), one.name] > 1:
            yield Problem(place=one.place, says="another object has the same kind and name")


def _namespace(one: KubernetesObject) -> str:
    return str(mapping(one.document.get("metadata")).get("namespace", ""))


def _selectors(found: tuple[KubernetesObject, ...], pods: list[Pod]) -> Iterator[Problem]:
    for one in found:
        wanted: Any = one.document.get("spec") or {}
        for step in SELECTORS.get(one.kind, ("",)):
            wanted = wanted.get(step) if isinstance(wanted, Mapping) else None
        if isinstance(wanted, Mapping) and wanted and not any(_is_found(wanted, pod) for pod in pods):
            yield Problem(place=one.place, says=f"no pod here has the labels {dict(wanted)}")


def _is_found(wanted: Mapping[str, str], pod: Pod) -> bool:
    return all(str(key).startswith(ADDED) or pod.labels.get(key) == value for key, value in wanted.items())


def _targets(found: tuple[KubernetesObject, ...]) -> Iterator[Problem]:
    there = {(one.kind, one.name) for one in found}.union(*(_made_of(one) for one in found))
    for one in found:
        target = mapping(one.document.get("spec")).get("scaleTargetRef")
        if isinstance(target, Mapping) and (str(target.get("kind")), str(target.get("name"))) not in there:
            yield Problem(
                place=one.place, says=f"it scales {target.get('kind')}/{target.get('name')}, which is not here"
            )


def _made_of(one: KubernetesObject) -> set[tuple[str, str]]:
    """Return (kind, name) of what an operator makes of an object, and an autoscaler may scale."""
    spec = mapping(one.document.get("spec"))
    if one.kind == "InferenceService":
        return {("Deployment", f"{one.name}-predictor")}
    if one.kind == "DynamoGraphDeployment":
        scaled = [part for part in mappings(spec.get("components")) if part.get("scalingAdapter") is not None]
        return {("DynamoGraphDeploymentScalingAdapter", f"{one.name}-{part.get('name')}") for part in scaled}
    return set()


def _ports(found: tuple[KubernetesObject, ...], pods: list[Pod]) -> Iterator[Problem]:
    for one in found:
        spec = mapping(one.document.get("spec"))
        if one.kind == "Service":
            named = [port.get("targetPort") for port in mappings(spec.get("ports"))]
            wanted = mapping(spec.get("selector"))
        elif one.kind == "PodMonitor":
            named = [end.get("port") for end in mappings(spec.get("podMetricsEndpoints"))]
            wanted = mapping(mapping(spec.get("selector")).get("matchLabels"))
        else:
            continue
        chosen = [pod for pod in pods if _is_found(wanted, pod)]
        for name in named:
            if isinstance(name, str) and chosen and not any(name in _port_names(pod) for pod in chosen):
                yield Problem(place=one.place, says=f"no container of its pods has a port named {name}")


def _port_names(pod: Pod) -> set[str]:
    return {str(port.get("name")) for container in pod.containers() for port in mappings(container.get("ports"))}


def _mounts(found: tuple[KubernetesObject, ...], pods: list[Pod]) -> Iterator[Problem]:
    maps = {one.name for one in found if one.kind == "ConfigMap"}
    for pod in pods:
        volumes = {str(volume.get("name")): volume for volume in mappings(pod.spec.get("volumes"))}
        for container in pod.containers():
            for mount in mappings(container.get("volumeMounts")):
                if str(mount.get("name")) not in volumes:
                    yield Problem(place=pod.place, says=f"the volume {mount.get('name')} is mounted and is not there")
        for volume in volumes.values():
            name = mapping(volume.get("configMap")).get("name")
            if name and str(name) not in maps:
                yield Problem(place=pod.place, says=f"the ConfigMap {name} is not here")


VALIDATOR = Validator(name="references", title="selectors, ports and names of objects", order=22, run=run)
