"""Kubernetes' Pod Security Standard `restricted`, for every pod template, custom resources' too.

The rules: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.validation.folder import Folder
from toolkit.validation.pods import Pod, pods_of
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
        reason = (one.document.get("metadata") or {}).get("annotations", {}).get(EXCEPTION)
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
    for volume in pod.spec.get("volumes") or ():
        if kinds := set(volume) - {"name"} - VOLUMES:
            yield f"the volume {volume.get('name')} is a {', '.join(sorted(kinds))}"
    shared = pod.spec.get("securityContext") or {}
    for container in pod.containers():
        own = container.get("securityContext") or {}
        name = container.get("name")
        yield from (f"container {name}: {fault}" for fault in _container_faults(own, shared))
        if any("hostPort" in port for port in container.get("ports") or ()):
            yield f"container {name}: it has a hostPort"


def _container_faults(own: Mapping[str, Any], shared: Mapping[str, Any]) -> Iterator[str]:
    capabilities = own.get("capabilities") or {}
    if own.get("privileged"):
        yield "it is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if "ALL" not in (capabilities.get("drop") or ()):
        yield "it does not drop all capabilities"
    if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
        yield f"it adds {', '.join(capabilities['add'])}"
    if own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if own.get("runAsUser", shared.get("runAsUser")) == 0:
        yield "it runs as user 0"
    if (own.get("seccompProfile") or shared.get("seccompProfile") or {}).get("type") not in {
        "RuntimeDefault",
        "Localhost",
    }:
        yield "seccompProfile is not RuntimeDefault"


VALIDATOR = Validator(name="pod security", title="the restricted Pod Security Standard", order=71, run=run)
