"""Kubernetes' Pod Security Standard `restricted`, for every pod template, custom resources' too.

The rules: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.validation.folder import Folder
from toolkit.validation.pods import Pod, pods_of
from toolkit.validation.shapes import mapping, mappings, words
from toolkit.validation.validator import Outcome, Problem, Validator

#: What a restricted pod may mount; an image's volume is read-only and has come since.
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret", "image",
}  # fmt: skip
HOST = ("hostNetwork", "hostPID", "hostIPC")
#: On an object: why its pods need more than `restricted` allows, in words.
EXCEPTION = "trtk/pod-security-exception"


def run(folder: Folder) -> Outcome:
    """Hold every pod template to the standard; one with a reason on its object is named, and not checked."""
    pods: list[Pod] = []
    excused: list[str] = []
    for one in folder.all_objects:
        found = pods_of(one)
        reason = mapping(mapping(one.document.get("metadata")).get("annotations")).get(EXCEPTION)
        if found and reason:
            excused.append(f"{one.place}: {reason}")
        else:
            pods += found
    problems = tuple(Problem(place=pod.place, says=says) for pod in pods for says in _faults(pod))
    return Outcome(checked=len(pods), unit="pods", problems=problems, not_checked=tuple(excused))


def _faults(pod: Pod) -> Iterator[str]:
    for key in HOST:
        if pod.spec.get(key):
            yield f"{key} is set"
    for volume in mappings(pod.spec.get("volumes")):
        if kinds := set(volume) - {"name"} - VOLUMES:
            yield f"the volume {volume.get('name')} is a {', '.join(sorted(map(str, kinds)))}"
    shared = mapping(pod.spec.get("securityContext"))
    for container in pod.containers():
        own = mapping(container.get("securityContext"))
        name = container.get("name")
        yield from (f"container {name}: {fault}" for fault in _container_faults(own, shared))
        if any("hostPort" in port for port in mappings(container.get("ports"))):
            yield f"container {name}: it has a hostPort"


def _container_faults(own: Mapping[str, Any], shared: Mapping[str, Any]) -> Iterator[str]:
    capabilities = mapping(own.get("capabilities"))
    if own.get("privileged"):
        yield "it is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if "ALL" not in words(capabilities.get("drop")):
        yield "it does not drop all capabilities"
    if set(words(capabilities.get("add"))) - {"NET_BIND_SERVICE"}:
        yield f"it adds {', '.join(words(capabilities['add']))}"
    if own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if own.get("runAsUser", shared.get("runAsUser")) == 0:
        yield "it runs as user 0"
    profile = mapping(own.get("seccompProfile") or shared.get("seccompProfile"))
    if profile.get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile is not RuntimeDefault"


VALIDATOR = Validator(name="pod security", title="the restricted Pod Security Standard", order=71, run=run)
