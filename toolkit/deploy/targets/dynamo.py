"""NVIDIA Dynamo: a graph of frontends and TensorRT-LLM workers, and a request that has its profiler look further."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from toolkit import templating
from toolkit.deploy import (
    dynamo_graph,
    dynamo_guide,
    dynamo_releases,
    groups,
    llm_api,
    manifests,
    names,
    operated,
    pods,
)
from toolkit.deploy.guide import readme
from toolkit.deploy.target import Setting, Target
from toolkit.errors import UsageError
from toolkit.specs import DeploySpec

FOLDER = "deploy/dynamo"
PROBE_PERIOD_S = 10
#: After the requests in flight: the ranks' own end.
END_MARGIN_S = 30
MIB = 1 << 20
CHOICES = {"grove": ("true", "false"), "search": ("rapid", "thorough")}
SETTINGS = {
    "release": Setting(default=dynamo_releases.default(), help="of Dynamo; decides the images"),
    "frontends": Setting(default="2", help="processes that take requests"),
    "prefill": Setting(default="auto", help="workers that read prompts, with --disaggregated; auto: from the load"),
    "grove": Setting(default="true", help="false: LeaderWorkerSets hold the pods of several nodes together"),
    "search": Setting(default="rapid", help="how the profiler of request.yaml looks: rapid or thorough"),
    **operated.settings(),
}
#: Of Dynamo's images.
USER = {"uid": 1000, "gid": 0}


def render(spec: DeploySpec) -> dict[str, str]:
    """Return the graph, what scales and guards it, the request, and README.md."""
    dynamo_graph.need_possible(spec)
    _need_settings(spec)
    values = _values(spec)
    objects = ("graph.yaml", "guard.yaml", "request.yaml", *(("autoscaling.yaml",) if spec.autoscale else ()))
    return {
        **operated.prepared(_loaded(spec, values["release"].runtime_image), readers=values["pods"]),
        **{name: templating.render(f"{FOLDER}/{name}.j2", values) for name in objects},
        "README.md": readme(spec, dynamo_guide.guide(spec, values)),
    }


def _loaded(spec: DeploySpec, image: str) -> DeploySpec:
    """Return a deployment whose files are taken in by the image that its nodes pull anyhow."""
    return dataclasses.replace(spec, container=dataclasses.replace(spec.container, image=image))


def _need_settings(spec: DeploySpec) -> None:
    for name, known in CHOICES.items():
        if spec.settings[name] not in known:
            raise UsageError(
                f"--set {name}={spec.settings[name]} is not known.", hint=f"Write {' or '.join(known)} there."
            )


def _values(spec: DeploySpec) -> dict[str, Any]:
    graph, nodes = dynamo_graph.name_of(spec), spec.placement.nodes
    release = dynamo_releases.get(spec.settings["release"])
    frontends, workers = dynamo_graph.frontends(spec), dynamo_graph.workers_of(spec, release)
    replicas = sum(worker.replicas.whole for worker in workers)
    return {
        "spec": spec,
        "mark": manifests.MARK,
        "graph": graph,
        "release": release,
        "frontends": frontends,
        "workers": workers,
        "pods": frontends.whole + nodes * replicas,
        "total_gpus": replicas * spec.model.ranks,
        "left_out": dynamo_graph.left_out(spec, release),
        "labels": names.labels(graph, version=release.name),
        "annotations": pods.about(spec),
        "model": llm_api.served_name(spec.model.model),
        "model_path": dynamo_graph.MODEL_PATH,
        "config_path": dynamo_graph.CONFIG_PATH,
        "config_name": dynamo_graph.config_name(graph, workers),
        "sku": dynamo_releases.sku(spec.gpu.name),
        "request": dynamo_graph.request(spec),
        **_pod(spec),
        **_guarded(graph, ("frontend", *(worker.name for worker in workers))),
    }


def _pod(spec: DeploySpec) -> dict[str, Any]:
    nodes, budgets = spec.placement.nodes, spec.budgets
    wait_s = groups.WAIT_S if nodes > 1 else 0
    return {
        "own": USER,
        "pod": operated.pod_values(spec),
        "gpus": spec.placement.gpus_per_node,
        "shm_mib": math.ceil(budgets.shm_bytes.value / MIB),
        "memory_mib": math.ceil(budgets.memory_bytes.value / nodes / MIB),
        "cpus": math.ceil(budgets.cpus.value / nodes),
        "grace_s": math.ceil(budgets.drain_s.value) + END_MARGIN_S,
        "startup_probes": math.ceil((budgets.startup_s.value + wait_s) / PROBE_PERIOD_S),
        "wait_s": wait_s,
    }


def _guarded(graph: str, components: tuple[str, ...]) -> dict[str, Any]:
    own = {dynamo_graph.GRAPH_LABEL: graph}
    return {
        "components": components,
        "graph_label": own,
        "component_key": dynamo_graph.COMPONENT_LABEL,
        "pod_labels": {name: {**own, dynamo_graph.COMPONENT_LABEL: name} for name in components},
        "component_names": {name: names.part_of(graph, name) for name in components},
        "worker_policy": names.part_of(graph, "workers"),
    }


TARGET = Target(
    name="dynamo",
    title="NVIDIA Dynamo",
    render=render,
    settings=SETTINGS,
    is_multi_node=True,
    is_autoscaled=True,
    is_scaled_by_kv_use=False,
    is_disaggregated=True,
    has_own_image=True,
)
