"""Deployments for tests of targets, as `trtk deploy` makes them of a build; nothing is looked up."""

import dataclasses

from toolkit import deploy
from toolkit.specs import (
    Autoscale,
    Budgets,
    DeployedContainer,
    DeployedGpu,
    DeployedModel,
    DeploySpec,
    Limits,
    ModelVolume,
    Placement,
    Promise,
    Reasoned,
)

GIB = 1 << 30
KINDS = {"engine": "trtllm", "llmapi": "llmapi", "openvino": "openvino"}
IMAGES = {"openvino": "registry.example.com/trtk-cpu@sha256:" + "c" * 64}
NVIDIA = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3@sha256:" + "d" * 64
VOLUMES = {
    "pvc": ModelVolume(kind="pvc", source="models", sub_path="demo"),
    "oci": ModelVolume(kind="oci", source="registry.example.com/models/demo@sha256:" + "e" * 64),
    "hostpath": ModelVolume(kind="hostpath", source="/srv/models/demo"),
}


def because(value, reason="so says the planner"):
    return Reasoned(value=value, reason=reason)


def spec_of(target, flow="engine", *, tp=1, nodes=1, volume="hostpath", autoscale="", deferred=True, **changes):
    """Return a deployment; SETTINGS among the changes are put over the target's defaults."""
    is_cpu = flow == "openvino"
    settings = {name: one.default for name, one in deploy.pick(target).settings.items()}
    settings |= changes.pop("settings", {})
    made = DeploySpec(
        target=target,
        name="demo-a4500-int4",
        namespace="serving",
        model=DeployedModel(
            folder="demo-a4500-int4",
            model="org/demo",
            revision="0123456789abcdef0123456789abcdef01234567",
            kind=KINDS[flow],
            flow=flow,
            quant="int4",
            build_id="b" * 64,
            is_deferred=deferred and not is_cpu,
            front_model="ensemble",
            limits=Limits(max_batch_size=16, max_seq_len=4096, max_num_tokens=2048, tp=tp),
            loaded_bytes=4 * GIB,
            folder_bytes=5 * GIB,
            tensorrt_llm="" if is_cpu else "1.2.1",
        ),
        gpu=DeployedGpu(
            name="cpu" if is_cpu else "a4500",
            title="CPU" if is_cpu else "NVIDIA RTX A4500",
            product="",
            sm=0 if is_cpu else 86,
            memory_mib=0 if is_cpu else 19558,
        ),
        placement=Placement(nodes=nodes, gpus_per_node=0 if is_cpu else tp // nodes),
        container=_container(flow, deferred=deferred),
        volume=VOLUMES[volume] if isinstance(volume, str) else volume,
        budgets=Budgets(
            startup_s=because(300),
            compile_s=because(1200) if flow == "engine" and deferred else None,
            drain_s=because(20, "an answer of 256 tokens takes 9.6 s under the load"),
            memory_bytes=because(16 * GIB),
            shm_bytes=because(2 * GIB),
            cpus=because(4),
        ),
        replicas=because(2),
        promise=Promise(
            evidence="the planner (fitted)", isl=1024, osl=256, concurrency=because(8), slos=("ttft=500ms@p95",)
        ),
        autoscale=_autoscale(autoscale) if autoscale else None,
        settings=settings,
        release="" if is_cpu else "26.07",
        trtk="0.1.0",
    )
    return dataclasses.replace(made, **changes)


def _autoscale(kind):
    return Autoscale(
        kind=kind,
        min_replicas=because(1),
        max_replicas=because(4),
        waiting=because(5),
        kv_use=because(0.8),
        cooldown_s=because(900),
        prometheus_url="http://prometheus.monitoring:9090" if kind == "keda" else "",
    )


def _container(flow, *, deferred):
    if flow == "openvino":
        return DeployedContainer(
            image=IMAGES[flow],
            arguments=(
                *("serve", "/engine", "--backend", "embedded", "--host", "0.0.0.0", "--allow-remote"),
                *("--http-port", "8000", "--grpc-port", "8001", "--metrics-port", "8002"),
                *("--timeout", "300", "--exit-timeout", "20", "--restart", "no", "--print-log"),
            ),
            environment={"HOME": "/tmp"},
            uid=1000,
            gid=1000,
            model_path="/engine",
        )
    addresses = [f"--{door}-address=0.0.0.0" for door in ("http", "grpc", "metrics")]
    ports = ["--http-port=8000", "--grpc-port=8001", "--metrics-port=8002"]
    own = ["--id=demo-a4500-int4", "--exit-timeout-secs=20", *addresses, *ports]
    return DeployedContainer(
        image=NVIDIA,
        arguments=("python3", "/bundle/start.py", "--", *own),
        environment={"HOME": "/tmp", "HF_HUB_OFFLINE": "1", "TRTK_ENGINES": "/engines"},
        uid=1000,
        gid=1000,
        model_path="/bundle",
        engines_path="/engines" if flow == "engine" and deferred else "",
    )
