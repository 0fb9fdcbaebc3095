"""Helm: the objects of the kubernetes target as a chart, whose default values give those very objects."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from toolkit import templating
from toolkit.deploy import charts, manifests, steps
from toolkit.deploy.charts import Slot, Switch
from toolkit.deploy.guide import Guide, Step, readme
from toolkit.deploy.target import Target
from toolkit.specs import DeploySpec

#: A release's name is that of its objects, which put suffixes behind it.
MAX_RELEASE_NAME = 40
WORKLOADS = ("Deployment", "LeaderWorkerSet")
COUNT = {"type": "integer", "minimum": 1}
TEXT = {"type": "string", "minLength": 1}
AMOUNT = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(m|[kMGT]i?)?$"}
SECONDS = {"type": "integer", "minimum": 1, "maximum": 86400}
CONTAINERS = r".*/(initContainers|containers)/0"
NAMESPACE = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}

SWITCHES = (
    Switch(value="objects.podMonitor", kind="PodMonitor", help="Needs the Prometheus operator."),
    Switch(value="objects.networkPolicy", kind="NetworkPolicy", help="Who may reach Triton, which asks for no key."),
    Switch(value="objects.podDisruptionBudget", kind="PodDisruptionBudget", help="One server at a time."),
    Switch(value="objects.inferencePool", kind="InferencePool", help="Needs the gateway API's inference extension."),
)


#: What becomes a value: the first one that a place fits.
SLOTS = (
    Slot(value="replicas", help="Servers.", path="spec/replicas", schema=COUNT, kinds=WORKLOADS),
    Slot(
        value="image", help="Of the server, best with its digest.", schema=TEXT, kinds=WORKLOADS,
        path=r".*/(initContainers|containers)/\d+/image", same_as="image",
    ),
    Slot(
        value="gatewayImage", help="Of the OpenAI endpoint.", schema=TEXT, kinds=WORKLOADS,
        path=r".*/containers/\d+/image",
    ),
    Slot(
        value="resources.memory", help="Of a server's pod; /dev/shm counts.", schema=AMOUNT, kinds=WORKLOADS,
        path=rf"{CONTAINERS}/resources/(requests|limits)/memory",
    ),
    Slot(
        value="resources.cpu", help="That a pod asks for.", schema=AMOUNT, kinds=WORKLOADS,
        path=rf"{CONTAINERS}/resources/requests/cpu",
    ),
    Slot(
        value="resources.cpuLimit", help="That a pod may use.", schema=AMOUNT, kinds=WORKLOADS,
        path=rf"{CONTAINERS}/resources/limits/cpu",
    ),
    Slot(
        value="startup.failureThreshold", help="Times ten seconds that a start may take.", schema=COUNT,
        kinds=WORKLOADS, path=r".*/containers/0/startupProbe/failureThreshold",
    ),
    Slot(
        value="terminationGracePeriodSeconds", help="For the requests in flight.", schema=SECONDS, kinds=WORKLOADS,
        path=r".*/terminationGracePeriodSeconds",
    ),
    Slot(
        value="pullSecret", help="Secret that pulls the images.", schema=TEXT,
        path=r".*/imagePullSecrets/0/name",
    ),
    Slot(
        value="model.claim", help="That holds the model.", schema=TEXT,
        path=r".*/persistentVolumeClaim/claimName", same_as="volume",
    ),
    Slot(
        value="model.folder", help="In the claim.", schema=TEXT, kinds=WORKLOADS,
        path=r".*/volumeMounts/\d+/subPath",
    ),
    Slot(value="model.image", help="That holds the model.", schema=TEXT, path=r".*/volumes/\d+/image/reference"),
    Slot(value="model.path", help="Of the node.", schema=TEXT, path=r".*/volumes/\d+/hostPath/path"),
    Slot(
        value="autoscaling.minReplicas", help="Servers at least.", schema=COUNT,
        path="spec/(minReplicaCount|minReplicas|fallback/replicas)",
    ),
    Slot(
        value="autoscaling.maxReplicas", help="Servers at most.", schema=COUNT,
        path="spec/(maxReplicaCount|maxReplicas)",
    ),
    Slot(
        value="autoscaling.prometheus", help="Where KEDA asks.", schema=TEXT, kinds=("ScaledObject",),
        path=r"spec/triggers/\d+/metadata/serverAddress",
    ),
    Slot(
        value="autoscaling.waiting", help="Requests that wait, of each server; more of them: one more server.",
        schema=AMOUNT, path="spec/(triggers/0/metadata/threshold|metrics/0/pods/target/averageValue)",
    ),
    Slot(
        value="autoscaling.kvUse", help="Share of the KV cache in use; more: one more server.", schema=AMOUNT,
        path="spec/(triggers/1/metadata/threshold|metrics/1/pods/target/averageValue)",
    ),
    Slot(
        value="network.clientNamespace", help="Whose pods may send requests.", schema=NAMESPACE,
        kinds=("NetworkPolicy",),
        path=r"spec/ingress/0/from/0/namespaceSelector/matchLabels/kubernetes\.io/metadata\.name",
    ),
    Slot(
        value="network.monitoringNamespace", help="Whose Prometheus may read metrics.", schema=NAMESPACE,
        kinds=("NetworkPolicy",),
        path=r"spec/ingress/1/from/0/namespaceSelector/matchLabels/kubernetes\.io/metadata\.name",
    ),
)  # fmt: skip


def render(spec: DeploySpec) -> dict[str, str]:
    """Return the chart and README.md."""
    known = {"image": spec.container.image, "volume": spec.volume.source}
    made = charts.chart(manifests.manifests(_of_a_release(spec)), SLOTS, SWITCHES, known=known)
    values = {"spec": spec, "values": _lines(made.values, made.helps), "max_name": MAX_RELEASE_NAME}
    return {
        "Chart.yaml": templating.render("deploy/helm/Chart.yaml.j2", values),
        ".helmignore": "README.md\ndeploy.json\nprepare/\n",
        "values.yaml": templating.render("deploy/helm/values.yaml.j2", values),
        "values.schema.json": json.dumps(made.schema, indent=2) + "\n",
        "templates/name.yaml": templating.render("deploy/helm/name.yaml.j2", values),
        **{f"templates/{name}": text for name, text in made.templates.items()},
        **{f"prepare/{name}": text for name, text in manifests.prepared(spec).items()},
        "README.md": readme(spec, _guide(manifests.with_defaults(spec))),
    }


def _of_a_release(spec: DeploySpec) -> DeploySpec:
    own = f"--id={spec.name}"
    arguments = tuple(f"--id={charts.NAME}" if word == own else word for word in spec.container.arguments)
    return dataclasses.replace(
        spec,
        name=charts.NAME,
        namespace=charts.NAMESPACE,
        container=dataclasses.replace(spec.container, arguments=arguments),
    )


def _lines(values: Mapping[str, Any], helps: Mapping[str, str], prefix: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        path, indent = f"{prefix}{name}", "  " * prefix.count(".")
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, helps, f"{path}.")]
        else:
            lines += [f"{indent}# {helps[path]}", f"{indent}{name}: {json.dumps(value, ensure_ascii=False)}"]
    return lines


def _guide(spec: DeploySpec) -> Guide:
    name, where = spec.name, f"--namespace {spec.namespace}"
    return Guide(
        needs=("Helm 3.8 or newer.", *steps.needs(spec)),
        prepare=steps.prepare(spec),
        apply=(
            Step(text="Look at what it would apply:", command=f"helm template {name} . {where}"),
            Step(text="Install it, or bring it up to date:", command=f"helm upgrade --install {name} . {where}"),
            Step(
                text="Another value, which values.schema.json checks; what a cluster lacks is left out the same way:",
                command=f"helm upgrade {name} . {where} --reuse-values --set objects.podMonitor=false",
            ),
        ),
        watch=steps.watch(spec),
        reach=steps.reach(spec),
        url=steps.URL,
        is_reaching_one=True,
        remove=(
            Step(text="All that the chart made, compiled engines too:", command=f"helm uninstall {name} {where}"),
            *steps.remove_claim(spec),
        ),
        notes=(*steps.notes(spec), f"Another release has another name than {name}: its objects are called like it."),
    )


TARGET = Target(
    name="helm",
    title="Helm",
    render=render,
    settings=manifests.SETTINGS,
    is_multi_node=True,
    is_autoscaled=True,
)
