"""What the pod of one server is told: by node labels, probes, times and volumes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.deploy import names
from toolkit.specs import DeploySpec

MIB = 1 << 20
#: Until endpoints and gateways have heard that a pod goes; KServe's default templates wait as long.
LEAVE_S = 15
#: Closing what is open, once the last request is done.
MARGIN_S = 15
STARTUP_PERIOD_S = 10
#: A token takes milliseconds; a full batch of long prompts may keep it waiting for this.
PROBE_TIMEOUT_S = 20
#: Of liveness: five minutes in which the engine answers nobody.
ALIVE_FAILURES = 10
KEYS = "/run/trtk-keys/api-keys.json"
#: On an object whose pods need more than the profile `restricted` allows: why.
EXCEPTION = "trtk/pod-security-exception"
#: By it the endpoint picker of an InferencePool knows which metrics say what waits and how full the KV cache is.
#: https://github.com/llm-d/llm-d-router, core-metrics-extractor
ENGINE_LABEL, ENGINE = "llm-d.ai/engine-type", "triton-tensorrt-llm"
PROBE = "/opt/trtk-probe/probe.py"
SERVER, WORKER = "server", "worker"
#: GPUs that several pods share have no memory of their own: a fraction of it cannot be counted on.
SHARED = ("time-slicing", "mps")


@dataclass(frozen=True, kw_only=True)
class Pod:
    """The values of the pod's template."""

    labels: Mapping[str, str]
    selector: Mapping[str, str]
    annotations: Mapping[str, str]
    arguments: tuple[str, ...]
    compile_arguments: tuple[str, ...]
    is_serving: bool  # False: a worker of a group, which answers nobody
    is_compiling: bool
    ports: Mapping[str, int]
    gpus: int  # of this pod
    node_terms: tuple[Mapping[str, Any], ...]
    node_reason: str
    memory: str
    cpu_limit: int
    shm: str
    tmp_size: str
    startup_failures: int
    progress_s: int
    grace_s: int
    ready_command: tuple[str, ...]
    alive_command: tuple[str, ...]
    files_name: str
    engines_claim: str
    group_secret: str = ""
    pull_secret: str = ""
    priority_class: str = ""
    keys_secret: str = ""
    is_root_read_only: bool = True
    surge: int = 0
    wait_s: int = 0  # of a start, for other pods
    leave_s: int = LEAVE_S
    margin_s: int = MARGIN_S
    probe_timeout_s: int = PROBE_TIMEOUT_S
    alive_failures: int = ALIVE_FAILURES


def serving_labels(spec: DeploySpec) -> dict[str, str]:
    """Return the labels of the pods that answer clients, and of no other deployment's."""
    return {**names.selector(spec.name), "app.kubernetes.io/component": SERVER}


def server(spec: DeploySpec) -> Pod:
    """Return the pod that answers clients: the only one, or the leader of a group."""
    own, settings = spec.container, spec.settings
    compile_s = spec.budgets.compile_s.whole if spec.budgets.compile_s else 0
    is_group = spec.placement.nodes > 1
    return Pod(
        labels={
            **names.labels(spec.name, version=spec.release, component=SERVER),
            **({ENGINE_LABEL: ENGINE} if own.openai_port else {}),
        },
        selector=serving_labels(spec),
        annotations={"kubectl.kubernetes.io/default-container": "server", "trtk/build": spec.model.build_id},
        arguments=own.arguments,
        compile_arguments=("python3", f"{own.model_path}/start.py", "--build-only"),
        is_serving=True,
        is_compiling=bool(own.engines_path),
        ports={"http": own.http_port, "grpc": own.grpc_port, "metrics": own.metrics_port},
        gpus=spec.placement.gpus_per_node,
        node_terms=node_terms(spec),
        node_reason=node_reason(spec),
        memory=f"{math.ceil(spec.budgets.memory_bytes.value / MIB)}Mi",
        cpu_limit=2 * spec.budgets.cpus.whole if spec.gpu.sm else spec.budgets.cpus.whole,
        shm=f"{math.ceil(spec.budgets.shm_bytes.value / MIB)}Mi",
        tmp_size=settings["tmp_size"],
        startup_failures=math.ceil(spec.budgets.startup_s.value / STARTUP_PERIOD_S),
        progress_s=math.ceil(spec.budgets.startup_s.value + compile_s + 300),
        grace_s=LEAVE_S + spec.budgets.drain_s.whole + MARGIN_S,
        ready_command=probe_command(spec, "ready"),
        alive_command=probe_command(spec, "alive"),
        files_name=names.part_of(spec.name, "files"),
        engines_claim=names.part_of(spec.name, "engines"),
        group_secret=names.part_of(spec.name, "group") if is_group else "",
        pull_secret=settings["pull_secret"],
        priority_class=settings["priority_class"],
        keys_secret=settings["api_keys_secret"],
        is_root_read_only=settings["read_only_root"] == "true",
        surge=int(settings["surge"]),
    )


def about(spec: DeploySpec) -> dict[str, str]:
    """Return what somebody wants to know of a running object, and no label could hold."""
    found = {
        "trtk/model": spec.model.model,
        "trtk/revision": spec.model.revision,
        "trtk/quant": spec.model.quant,
        "trtk/build": spec.model.build_id,
        "trtk/sized-by": spec.promise.evidence,
        EXCEPTION: "the model lies in a folder of the node" if spec.volume.kind == "hostpath" else "",
    }
    return {key: value for key, value in found.items() if value}


def node_terms(spec: DeploySpec) -> tuple[Mapping[str, Any], ...]:
    """Return what a node must be, by the labels of GPU feature discovery: an engine runs on its own SM alone."""
    gpu = spec.gpu
    if not gpu.sm:
        return ()
    terms = [
        _term("nvidia.com/gpu.compute.major", "In", str(gpu.sm // 10)),
        _term("nvidia.com/gpu.compute.minor", "In", str(gpu.sm % 10)),
        _term("nvidia.com/gpu.memory", "Gt", str(gpu.memory_mib - 1)),
        _term("nvidia.com/gpu.sharing-strategy", "NotIn", *SHARED),
    ]
    if gpu.product:
        terms.append(_term("nvidia.com/gpu.product", "In", gpu.product))
    return tuple(terms)


def _term(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


def node_reason(spec: DeploySpec) -> str:
    """Return why a node must be so, in a sentence."""
    gpu = spec.gpu
    return f"Built for sm_{gpu.sm} and sized for the {gpu.memory_mib} MiB of {gpu.title}." if gpu.sm else ""


def probe_command(spec: DeploySpec, kind: str) -> tuple[str, ...]:
    """Return the deep probe's command; each kind remembers its own last look."""
    own = spec.container
    return (
        *("python3", PROBE, "--model", spec.model.front_model, "--http", str(own.http_port)),
        *("--metrics", str(own.metrics_port), "--timeout", str(PROBE_TIMEOUT_S), "--state", f"/tmp/trtk-probe-{kind}"),
    )
