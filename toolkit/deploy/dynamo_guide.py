"""What an operator types to run a graph of Dynamo, and what he should know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.deploy import dynamo_graph, operated, steps
from toolkit.deploy.dynamo_releases import DynamoRelease
from toolkit.deploy.guide import Guide, Step
from toolkit.specs import DeploySpec

OPENAI_URL = "openai+http://127.0.0.1:8000/v1"


def guide(spec: DeploySpec, values: Mapping[str, Any]) -> Guide:
    """Return the steps; VALUES are those of the templates."""
    graph, where = values["graph"], steps.kubectl(spec)
    scaling = " -f autoscaling.yaml" if spec.autoscale else ""
    last = f"{dynamo_graph.GRAPH_LABEL}={graph},{dynamo_graph.COMPONENT_LABEL}={values['workers'][-1].name}"
    return Guide(
        needs=_needs(spec, values),
        prepare=operated.prepare(spec),
        apply=(
            Step(
                text="The guard first, as Dynamo asks nobody for a key:",
                command=f"{where} apply -f guard.yaml -f graph.yaml{scaling}",
            ),
        ),
        watch=(
            Step(text="Ready once every component is:", command=f"{where} get dynamographdeployment/{graph} --watch"),
            Step(text="What the workers say while they load:", command=f"{where} logs --follow --selector {last}"),
            Step(
                text="If you like, ask Dynamo's profiler for a better graph; it applies nothing:",
                command=f"{where} apply -f request.yaml\n{where} get dynamographdeploymentrequest/{graph} -o yaml",
            ),
        ),
        reach=Step(
            text="From this machine, in a second terminal; Dynamo speaks OpenAI's protocol:",
            command=f"{where} port-forward service/{graph}-frontend 8000:8000",
        ),
        url=OPENAI_URL,
        remove=(
            Step(
                text="The model's claim stays:",
                command=f"{where} delete --ignore-not-found{scaling} -f request.yaml -f graph.yaml -f guard.yaml",
            ),
            *steps.remove_claim(spec),
        ),
        notes=_notes(spec, values["release"], values["total_gpus"]),
    )


def _needs(spec: DeploySpec, values: Mapping[str, Any]) -> tuple[str, ...]:
    release: DynamoRelease = values["release"]
    needs = [
        f"Dynamo's operator {release.name} or newer, with its CRDs of nvidia.com/v1beta1.",
        f"{values['total_gpus']} free GPU(s) of sm_{spec.gpu.sm} and {spec.gpu.memory_mib} MiB or more, with driver "
        f"{release.driver} or newer, NVIDIA's device plugin and GPU feature discovery.",
    ]
    if spec.placement.nodes > 1:
        needs.append("Grove, or LeaderWorkerSet with Volcano: one worker takes several nodes.")
    if spec.autoscale:
        needs.append(
            f"KEDA 2.18 or newer, and Prometheus at {spec.autoscale.prometheus_url} that reads the PodMonitors of "
            "Dynamo's operator."
        )
    if spec.volume.kind == "oci":
        needs.append("Image volumes: Kubernetes 1.35, or 1.31 with the feature gate ImageVolume.")
    return tuple(needs)


def _notes(spec: DeploySpec, release: DynamoRelease, total_gpus: int) -> tuple[str, ...]:
    notes = [
        f"Dynamo {release.name} runs TensorRT-LLM {release.tensorrt_llm}; this was planned for "
        f"{spec.model.tensorrt_llm}. Load-test it before it serves anybody.",
        "Dynamo asks nobody for a key: put a gateway in front, and name its namespace with --set "
        "client_namespace=NAMESPACE.",
        "Its images are named by tag, as the operator reads their version from it.",
        "The root file system stays writable: TensorRT-LLM compiles kernels into the home folder of Dynamo's image.",
    ]
    if spec.placement.nodes > 1:
        notes.append(
            "That the profile `restricted` lets containers be that Grove or the operator add is UNVERIFIED; where it "
            "refuses them, label the namespace `baseline`."
        )
    if spec.is_disaggregated:
        if spec.cost:
            notes.append(
                f"The cost above is that of the decode workers; all {total_gpus} GPUs cost "
                f"{spec.cost.per_month * total_gpus / _counted(spec):.0f} {spec.cost.currency} a month."
            )
        notes.append(
            "Without RDMA the KV cache goes from prefill to decode over TCP: measure it against one worker for both."
        )
    if spec.autoscale:
        notes.append(
            "It scales by requests that wait or are in flight, and by objectives; the share of the KV cache in use is "
            "no trigger here, as the frontends do not tell it."
        )
    if spec.container.openai_port:
        notes.append("--openai changes nothing here: Dynamo's frontend speaks OpenAI's protocol and no other.")
    return tuple(notes)


def _counted(spec: DeploySpec) -> int:
    """Return the GPUs that the cost is of."""
    return spec.replicas.whole * spec.model.ranks
