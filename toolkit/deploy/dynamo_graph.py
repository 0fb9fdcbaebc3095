"""What a Dynamo graph is made of: its workers, how many of each, what each is told, and when there are more."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.deploy import llm_api, names, objectives
from toolkit.deploy.dynamo_releases import DynamoRelease
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import Autoscale, DeploySpec, Reasoned

#: Grove names pods after graph, scaling group and clique, and refuses more than 45 letters of those three.
MOST_LETTERS, LONGEST_PARTS = 45, len("prefillprefill-ldr")
#: TensorRT-LLM of Dynamo's images is built for Ampere and newer.
OLDEST_SM = 80
#: Where the model's volume and the LLM API's arguments lie in a worker.
MODEL_PATH, CONFIG_PATH = "/model", "/etc/trtk"
#: Labels of its pods: those that begin with nvidia.com are the operator's.
GRAPH_LABEL, COMPONENT_LABEL = "trtk/graph", "trtk/component"
AGGREGATED, PREFILL, DECODE = "worker", "prefill", "decode"


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """One reason for more workers: a query whose result, shared among them, stays under the threshold."""

    name: str
    query: str
    threshold: Reasoned
    is_shared: bool  # False: the result is of the whole graph, and more workers do not divide it


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One component of the graph that computes."""

    name: str  # worker, prefill, decode: its type as well
    replicas: Reasoned
    arguments: tuple[str, ...]
    config_file: str
    config: str  # YAML
    triggers: tuple[Trigger, ...] = ()


def need_possible(spec: DeploySpec) -> None:
    """Raise for what Dynamo's TensorRT-LLM workers cannot run."""
    model = spec.model
    if model.kind == "trtllm":
        raise PlanInfeasible(
            f"{model.folder} holds compiled engines, and Dynamo's TensorRT-LLM workers load a checkpoint.",
            hint="Carry it over first: trtk migrate ENGINE makes the folder that this target takes.",
        )
    if model.kind != "llmapi":
        raise PlanInfeasible(
            f"{model.folder} is for the CPU, and Dynamo's TensorRT-LLM workers need NVIDIA GPUs.",
            hint="Build with --gpu and --flow llmapi, or try the target kubernetes.",
        )
    if spec.gpu.sm < OLDEST_SM:
        raise PlanInfeasible(
            f"Dynamo's images run on Ampere and newer, sm_{OLDEST_SM}; {spec.gpu.title} is sm_{spec.gpu.sm}.",
            hint="Try the target kubernetes.",
        )
    if spec.autoscale and spec.autoscale.kind != "keda":
        raise PlanInfeasible(
            "Dynamo's queue is a metric of Prometheus alone, which a HorizontalPodAutoscaler does not read.",
            hint="Leave --autoscaler out: KEDA reads Prometheus, and scales the graph's adapter.",
        )


def name_of(spec: DeploySpec) -> str:
    """Return the graph's name: the deployment's own, or a shorter one with a hash where Grove would refuse it."""
    return names.name_of(spec.name, limit=MOST_LETTERS - LONGEST_PARTS)


def config_name(graph: str, workers: tuple[Worker, ...]) -> str:
    """Return the name of the workers' ConfigMap: another where its content is another, so that workers restart."""
    content = json.dumps([(worker.config_file, worker.config) for worker in workers])
    return names.part_of(graph, f"llm-api-{hashlib.sha256(content.encode()).hexdigest()[: names.HASH_LENGTH]}")


def workers_of(spec: DeploySpec, release: DynamoRelease) -> tuple[Worker, ...]:
    """Return the graph's workers, frontends left out."""
    if not spec.is_disaggregated:
        return (_worker(spec, release, AGGREGATED, spec.replicas),)
    return (
        _worker(spec, release, PREFILL, _prefill_replicas(spec)),
        _worker(spec, release, DECODE, spec.replicas),
    )


def left_out(spec: DeploySpec, release: DynamoRelease) -> tuple[str, ...]:
    """Return the arguments of the plan that Dynamo's TensorRT-LLM does not take."""
    return llm_api.accepted(spec.model.llm_api, release.llm_api_keys)[1]


def _worker(spec: DeploySpec, release: DynamoRelease, name: str, replicas: Reasoned) -> Worker:
    file = f"{name}.yaml"
    arguments = [
        *("--model-path", f"{MODEL_PATH}/checkpoint"),
        *("--served-model-name", llm_api.served_name(spec.model.model)),
        *("--extra-engine-args", f"{CONFIG_PATH}/{file}"),
    ]
    if name != AGGREGATED:
        arguments += ["--disaggregation-mode", name]
    return Worker(
        name=name,
        replicas=replicas,
        arguments=tuple(arguments),
        config_file=file,
        config=llm_api.yaml_of(_settings(spec, release, name)),
        triggers=_triggers(spec, spec.autoscale, name) if spec.autoscale else (),
    )


def _settings(spec: DeploySpec, release: DynamoRelease, name: str) -> dict[str, Any]:
    taken, _ = llm_api.accepted(spec.model.llm_api, release.llm_api_keys)
    settings: dict[str, Any] = {"backend": "pytorch", **taken}
    if spec.placement.nodes > 1:
        settings["gpus_per_node"] = spec.placement.gpus_per_node
    if name == PREFILL:
        settings["disable_overlap_scheduler"] = True  # a prefill-only worker has nothing to overlap with
    if name != AGGREGATED:
        settings["cache_transceiver_config.backend"] = "DEFAULT"
    return settings


def _prefill_replicas(spec: DeploySpec) -> Reasoned:
    """Return how many workers read prompts: as many as are busy with it at the load of all decode workers."""
    asked, promise = spec.settings["prefill"], spec.promise
    if asked != "auto":
        return Reasoned(value=_count("prefill", asked), reason="asked for with --set prefill")
    if not (promise.ttft_ms and promise.output_tps):
        return Reasoned(value=1, reason="nobody said how long a prompt takes; measure, then --set prefill=N")
    rate = spec.replicas.value * promise.output_tps / promise.osl
    busy = rate * promise.ttft_ms / 1000
    reason = f"{rate:.3g} prompts/s, {promise.ttft_ms:.0f} ms each, are {busy:.2g} workers' time"
    return Reasoned(value=max(1, math.ceil(busy)), reason=reason)


def _count(setting: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise UsageError(f"--set {setting}={text} is no number of workers.", hint=f"Write --set {setting}=2.")
    return int(text)


def frontends(spec: DeploySpec) -> Reasoned:
    """Return how many processes take requests."""
    return Reasoned(value=_count("frontends", spec.settings["frontends"]), reason="while one goes, another answers")


def _triggers(spec: DeploySpec, scale: Autoscale, name: str) -> tuple[Trigger, ...]:
    graph = f'{{dynamo_namespace="{spec.namespace}-{name_of(spec)}"}}'
    goals = objectives.milliseconds(spec.promise)
    queue = Trigger(
        name="queued", query=f"sum(dynamo_frontend_queued_requests{graph})", threshold=scale.waiting, is_shared=True
    )
    in_flight = Trigger(
        name="in-flight",
        query=f"sum(dynamo_frontend_inflight_requests{graph})",
        threshold=spec.promise.concurrency,
        is_shared=True,
    )
    begun = _latency("ttft", "dynamo_frontend_time_to_first_token_seconds", graph, goals)
    gaps = _latency("itl", "dynamo_frontend_inter_token_latency_seconds", graph, goals)
    return {AGGREGATED: (queue, in_flight), PREFILL: (queue, *begun), DECODE: (in_flight, *gaps)}[name]


def _latency(name: str, family: str, graph: str, goals: Mapping[str, float]) -> tuple[Trigger, ...]:
    if name not in goals:
        return ()
    # Of nothing a quantile is NaN, which is no number to scale by; a comparison leaves it out.
    query = f"histogram_quantile(0.95, sum by (le) (rate({family}_bucket{graph}[5m]))) >= 0 or vector(0)"
    reason = f"the objective {name}={goals[name]:g}ms, p95 over five minutes"
    return (
        Trigger(name=name, query=query, threshold=Reasoned(value=goals[name] / 1000, reason=reason), is_shared=False),
    )


def request(spec: DeploySpec) -> dict[str, Any]:
    """Return the workload and the objectives of a DynamoGraphDeploymentRequest."""
    promise, goals = spec.promise, objectives.milliseconds(spec.promise)
    workload: dict[str, Any] = {"isl": round(promise.isl), "osl": max(1, round(promise.osl))}
    if promise.rate_rps:
        workload["requestRate"] = promise.rate_rps
    else:
        workload["concurrency"] = promise.in_flight_on(spec.replicas.whole)
    named = {"ttft": "ttft", "itl": "itl"} if {"ttft", "itl"} & goals.keys() else {"e2e": "e2eLatency"}
    return {"workload": workload, "sla": {key: goals[name] for name, key in named.items() if name in goals}}
