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
    return {name: manifests.SETTINGS[name] for name in (*SHARED, *names)}


def plain(spec: DeploySpec) -> DeploySpec:
    """Return the deployment with all of Kubernetes' settings filled in; raises UsageError for bad ones."""
    known = {name: spec.settings.get(name, one.default) for name, one in manifests.SETTINGS.items()}
    made = manifests.with_defaults(dataclasses.replace(spec, settings=known))
    manifests.need_possible(dataclasses.replace(made, placement=Placement()))
    return made


def prepared(spec: DeploySpec, *, readers: int) -> dict[str, str]:
    """Return what takes the model into a volume that so many pods read: path → text."""
    made = dataclasses.replace(
        plain(spec),
        placement=Placement(),
        replicas=Reasoned(value=readers, reason="each reads the volume"),
        autoscale=None,
    )
    return {f"prepare/{name}": text for name, text in manifests.prepared(made).items()}


def prepare(spec: DeploySpec) -> tuple[Step, ...]:
    """Return how the model gets there."""
    return steps.prepare(dataclasses.replace(plain(spec), placement=Placement()))


def pod_values(spec: DeploySpec) -> dict[str, Any]:
    """Return what the templates of a pod's own parts take, where the operator makes the rest."""
    return {
        "node_terms": pods.node_terms(spec),
        "node_reason": pods.node_reason(spec),
        "pull_secret": spec.settings["pull_secret"],
        "priority_class": spec.settings["priority_class"],
    }
