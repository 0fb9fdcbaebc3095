"""The Kubernetes objects of a deployment, with their reasons as comments: path below manifests/ → text."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from toolkit import templating
from toolkit.deploy import gateway_file, groups, names, pods, scaling
from toolkit.deploy.target import Setting
from toolkit.errors import UsageError
from toolkit.specs import DeploySpec, ModelVolume

FOLDER = "deploy/kubernetes"
MARK = "Made by `trtk deploy`."
#: Compiled engines: one for each kind of card and release, and a partial one beside them.
ENGINES_SHARE, ENGINES_LEAST_GIB = 4, 10
GIB = 1 << 30
SETTINGS: Mapping[str, Setting] = {
    "surge": Setting(default="", help="servers more than asked for during a rollout; 0 on GPUs, 1 on CPUs"),
    "monitoring_namespace": Setting(default="monitoring", help="where Prometheus runs"),
    "monitor_labels": Setting(default="", help="labels that Prometheus picks PodMonitors by: release=prometheus"),
    "client_namespace": Setting(default="", help="where clients run; empty: the deployment's own"),
    "storage_class": Setting(default="", help="of the claims that are made; empty: the cluster's default"),
    "pull_secret": Setting(default="", help="Secret with the registry's credentials"),
    "priority_class": Setting(default="", help="PriorityClass of the pods"),
    "api_keys_secret": Setting(
        default="", help="for --openai: Secret with api-keys.json of `trtk keys`; empty: NAME-api-keys"
    ),
    "endpoint_picker": Setting(default="", help="Service of the InferencePool's picker; empty: NAME-epp"),
    "read_only_root": Setting(default="true", help="false where nvidia-cdi-hook writes into the container's root"),
    "tmp_size": Setting(default="8Gi", help="of /tmp: compiled kernels, links"),
}
#: Settings that name an object of the cluster, and what the others may be.
NAMES = (
    *("pull_secret", "priority_class", "api_keys_secret", "endpoint_picker", "storage_class"),
    *("monitoring_namespace", "client_namespace"),
)
PATTERNS = {"read_only_root": "true|false", "surge": "0|1", "tmp_size": "[1-9][0-9]*Gi", "monitoring_namespace": ".+"}


def manifests(spec: DeploySpec) -> dict[str, str]:
    """Return every object, one a file; raises UsageError or PlanInfeasible for what cannot be."""
    spec = with_defaults(spec)
    need_possible(spec)
    values = values_of(spec)
    made = {
        name: templating.render(f"{FOLDER}/{name}.j2", values)
        for name in ("service.yaml", "poddisruptionbudget.yaml", "networkpolicy.yaml", "podmonitor.yaml")
    }
    workload = "leaderworkerset.yaml" if spec.placement.nodes > 1 else "deployment.yaml"
    made[workload] = templating.render(f"{FOLDER}/{workload}.j2", values)
    made["configmap.yaml"] = templating.render(f"{FOLDER}/configmap.yaml.j2", values)
    if spec.autoscale:
        name = "scaledobject.yaml" if spec.autoscale.kind == "keda" else "horizontalpodautoscaler.yaml"
        made[name] = templating.render(f"{FOLDER}/{name}.j2", values)
    if spec.container.openai_port:
        made["inferencepool.yaml"] = templating.render(f"{FOLDER}/inferencepool.yaml.j2", values)
    if spec.container.engines_path:
        made["engines-claim.yaml"] = _claim(
            spec,
            values,
            claim=names.part_of(spec.name, "engines"),
            gib=max(ENGINES_LEAST_GIB, ENGINES_SHARE * _gib(spec.model.loaded_bytes)),
            why="What a first start compiles is kept here, whole or not at all.",
        )
    return dict(sorted(made.items()))


def prepared(spec: DeploySpec) -> dict[str, str]:
    """Return what takes the model into a claim: the claim where the deployment has one of its own, and a pod."""
    spec = with_defaults(spec)
    if spec.volume.kind != "pvc":
        return {}
    values = values_of(spec)
    made = {"loader.yaml": templating.render(f"{FOLDER}/loader.yaml.j2", values)}
    if is_own_claim(spec):
        made["model-claim.yaml"] = _claim(
            spec,
            values,
            claim=spec.volume.source,
            gib=_gib(1.2 * spec.model.folder_bytes),
            why="The model's files, read by every server.",
        )
    return made


def is_own_claim(spec: DeploySpec) -> bool:
    """Whether the model's claim is this deployment's: nobody named another."""
    return spec.volume == ModelVolume(kind="pvc", source=names.part_of(spec.name, "model"))


def need_possible(spec: DeploySpec) -> None:
    """Raise where Kubernetes could not run it."""
    settings = spec.settings
    for key in NAMES:
        if settings[key]:
            names.need_label(settings[key], f"--set {key}=")
    for key, pattern in PATTERNS.items():
        if not re.fullmatch(pattern, settings[key]):
            raise UsageError(f"{key} is {settings[key]!r}, not {pattern}.", hint=f"{key}: {SETTINGS[key].help}.")
    groups.need_possible(spec)
    if spec.settings["api_keys_secret"] and not spec.container.openai_port:
        raise UsageError("api_keys_secret belongs to --openai.", hint="Add --openai.")


def with_defaults(spec: DeploySpec) -> DeploySpec:
    """Return a spec whose settings say what was left to this deployment; a second time it changes nothing."""
    settings = dict(spec.settings)
    settings["surge"] = settings["surge"] or ("0" if spec.gpu.sm else "1")
    if spec.container.openai_port:  # whoever reaches it could use it: there is no endpoint without keys
        settings["api_keys_secret"] = settings["api_keys_secret"] or names.part_of(spec.name, "api-keys")
    settings["endpoint_picker"] = settings["endpoint_picker"] or names.part_of(spec.name, "epp")
    return dataclasses.replace(spec, settings=settings)


def values_of(spec: DeploySpec) -> dict[str, Any]:
    """Return what the templates take; of a spec whose defaults are filled in."""
    pod, own = pods.server(spec), spec.container
    is_group = spec.placement.nodes > 1
    labels = names.labels(spec.name, version=spec.release, component=pods.SERVER)
    return {
        "spec": spec,
        "mark": MARK,
        "settings": spec.settings,
        "labels": labels,
        "monitor_labels": {**labels, **_labels_of(spec.settings["monitor_labels"])},
        "instance": names.selector(spec.name),
        "annotations": pods.about(spec),
        "pod": groups.leader(spec, pod) if is_group else pod,
        "worker": groups.worker(spec, pod) if is_group else None,
        "service_ports": {
            "http": own.http_port,
            "grpc": own.grpc_port,
            **({"openai": own.openai_port} if own.openai_port else {}),
        },
        # A gateway with keys asks Prometheus for one too.
        "metrics_ports": ["metrics", *(["openai"] if own.openai_port and not pod.keys_secret else [])],
        "client_reason": _client_reason(spec),
        "workload": (
            {"api_version": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": spec.name}
            if is_group
            else {"api_version": "apps/v1", "kind": "Deployment", "name": spec.name}
        ),
        "queries": scaling.queries(spec) if spec.autoscale else {},
        "endpoint_picker": spec.settings["endpoint_picker"],
        "files": _files(spec),
        "loader": names.part_of(spec.name, "loader"),
        "loader_labels": names.labels(spec.name, component="loader"),
    }


def _files(spec: DeploySpec) -> dict[str, str]:
    found = {"probe.py": templating.source(f"{FOLDER}/probe.py")}
    if spec.placement.nodes > 1:
        found["group.py"] = templating.source(f"{FOLDER}/group.py")
    if spec.container.gateway_image:
        keys = pods.KEYS if spec.settings["api_keys_secret"] else None
        found["gateway.json"] = gateway_file.text(spec, triton="127.0.0.1", api_keys=keys)
    return found


def _client_reason(spec: DeploySpec) -> str:
    where = spec.settings["client_namespace"]
    return f"pods of the namespace {where}" if where else "pods of this namespace; `client_namespace` names another"


def _labels_of(text: str) -> dict[str, str]:
    """Return `release=prometheus,team=a` as labels."""
    found = {}
    for part in filter(None, text.split(",")):
        key, sign, value = part.partition("=")
        if not sign or not names.KEY.fullmatch(key.strip()) or not names.VALUE.fullmatch(value.strip()):
            raise UsageError(f"monitor_labels has {part!r}, which is no label.", hint="Write release=prometheus.")
        found[key.strip()] = value.strip()
    return found


def _claim(spec: DeploySpec, values: dict[str, Any], *, claim: str, gib: int, why: str) -> str:
    further = {"claim": claim, "size": f"{gib}Gi", "why": why, "access_mode": access(spec)}
    return templating.render(f"{FOLDER}/persistentvolumeclaim.yaml.j2", {**values, **further})


def access(spec: DeploySpec) -> str:
    """Return how many nodes may mount a claim: as many as there are pods."""
    most = spec.autoscale.max_replicas.whole if spec.autoscale else spec.replicas.whole
    return "ReadWriteMany" if most * spec.placement.nodes > 1 or spec.settings["surge"] == "1" else "ReadWriteOnce"


def _gib(size: float) -> int:
    return max(1, math.ceil(size / GIB))
