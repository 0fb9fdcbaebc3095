"""What targets whose pods an operator makes have of plain Kubernetes: settings, the model's way into its volume."""

from __future__ import annotations

import dataclasses
from typing import Any

from toolkit.deploy import manifests, pods, steps
from toolkit.deploy.guide import Step
from toolkit.deploy.target import Setting
from toolkit.specs import DeploySpec, Placement, Reasoned

#: Settings that mean the same wherever a pod runs.
SHARED = ("monitoring_namespace", "client_namespace", "storage_class", "pull_secret", "priority_class")


def settings(*names: str) -> dict[str, Setting]:
    """Return Kubernetes' own settings of these names, and the shared ones."""
    return {name: manifests.SETTINGS[name] for name in (*names, *SHARED)}


def plain(spec: DeploySpec, *, readers: int) -> DeploySpec:
    """Return the deployment as plain Kubernetes reads it, with so many pods on its volume; raises for bad settings."""
    filled = {name: spec.settings.get(name, one.default) for name, one in manifests.SETTINGS.items()}
    filled["surge"] = filled["surge"] or ("0" if spec.gpu.sm else "1")
    filled["endpoint_picker"] = filled["endpoint_picker"] or "unused"
    made = dataclasses.replace(
        spec,
        settings=filled,
        placement=Placement(nodes=1, gpus_per_node=spec.placement.gpus_per_node),
        replicas=Reasoned(value=readers, reason="each reads the volume"),
        autoscale=None,
    )
    manifests.need_possible(made)
    return made


def prepared(spec: DeploySpec, *, readers: int) -> dict[str, str]:
    """Return what takes the model into its volume: path → text."""
    return {f"prepare/{name}": text for name, text in manifests.prepared(plain(spec, readers=readers)).items()}


def prepare(spec: DeploySpec) -> tuple[Step, ...]:
    """Return how the model gets there."""
    return steps.prepare(plain(spec, readers=1))


def pod_values(spec: DeploySpec) -> dict[str, Any]:
    """Return what the templates of a pod's own parts take, where the operator makes the rest."""
    return {
        "node_terms": pods.node_terms(spec),
        "node_reason": pods.node_reason(spec),
        "pull_secret": spec.settings["pull_secret"],
        "priority_class": spec.settings["priority_class"],
    }
