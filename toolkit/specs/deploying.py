"""What is handed over to a cluster or another machine: what is served, on what, how much of it, and why so much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.specs.planning import Cost
from toolkit.specs.plans import Limits


@dataclass(frozen=True, kw_only=True)
class Reasoned:
    """A number and the sentence that says where it comes from; targets write it beside the number."""

    value: float
    reason: str

    @property
    def whole(self) -> int:
        """The number where it counts something."""
        return int(self.value)


@dataclass(frozen=True, kw_only=True)
class ModelVolume:
    """Where the served folder lies on the target."""

    kind: str  # pvc, oci, hostpath
    source: str  # the claim's name; an image with its digest; an absolute path
    sub_path: str = ""  # of a claim: the folder in it


@dataclass(frozen=True, kw_only=True)
class DeployedModel:
    """The folder that `trtk build` made, as far as a target has to know it."""

    folder: str  # its name, not its path: demo-a4500-int4
    model: str  # meta-llama/Llama-3.1-8B-Instruct
    revision: str  # commit on the hub; empty where it has none
    kind: str  # trtllm, llmapi, openvino
    flow: str  # engine, llmapi, openvino
    quant: str
    build_id: str
    is_deferred: bool  # True: the engine is compiled on the node, at the first start
    front_model: str  # what clients ask Triton for: ensemble
    limits: Limits
    instances: int = 1  # of the engine; each takes tp * pp GPUs
    loaded_bytes: int = 0  # that a start reads
    folder_bytes: int = 0  # of all its files
    llm_api: Mapping[str, Any] = field(default_factory=dict)  # of llmapi: its model.yaml's keys, dotted
    tensorrt_llm: str = ""  # version in the release

    @property
    def is_for_cpu(self) -> bool:
        """Whether it runs without an NVIDIA GPU."""
        return self.kind == "openvino"

    @property
    def ranks(self) -> int:
        """GPUs of one replica; 0 on a CPU."""
        return 0 if self.is_for_cpu else self.limits.tp * self.limits.pp * self.instances


@dataclass(frozen=True, kw_only=True)
class DeployedGpu:
    """The card that a replica's nodes must have."""

    name: str  # a4500
    title: str  # NVIDIA RTX A4500
    product: str  # NVIDIA-RTX-A4500, as GPU feature discovery labels a node; empty: any card of this SM and memory
    sm: int  # 86; 0: no GPU
    memory_mib: int  # at least, on each GPU, as the label nvidia.com/gpu.memory counts it


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How the ranks of one replica lie on nodes."""

    nodes: int = 1
    gpus_per_node: int = 0  # that one pod asks for; 0 on a CPU


@dataclass(frozen=True, kw_only=True)
class DeployedContainer:
    """The one container that serves: as `trtk serve --backend docker` runs it, with paths inside it."""

    image: str  # with its digest where that is known
    arguments: tuple[str, ...]  # after the image's own entry point
    environment: Mapping[str, str]
    uid: int
    gid: int
    model_path: str  # where the served folder is mounted, read-only: /bundle, /engine
    engines_path: str = ""  # where what a first start compiles is kept; empty: nothing is compiled
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    openai_port: int = 0  # 0: no OpenAI-compatible endpoint
    gateway_image: str = ""  # of the container beside it that speaks OpenAI's protocol

    @property
    def is_digest_known(self) -> bool:
        """Whether the image is pinned."""
        return "@sha256:" in self.image


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """How long things may take and how much they may use."""

    startup_s: Reasoned  # from the container's start to ready, the engine being there
    compile_s: Reasoned | None  # of a first start, before that; None: nothing is compiled
    drain_s: Reasoned  # for requests in flight when it is told to stop
    memory_bytes: Reasoned  # of the container, /dev/shm and /tmp included
    shm_bytes: Reasoned
    cpus: Reasoned


@dataclass(frozen=True, kw_only=True)
class Autoscale:
    """When there are more replicas, and when fewer."""

    kind: str  # keda, hpa
    min_replicas: Reasoned
    max_replicas: Reasoned
    waiting: Reasoned  # requests that wait, of each replica; more of them: one more replica
    kv_use: Reasoned  # share of the KV cache in use, of each replica
    cooldown_s: Reasoned  # of quiet before a replica goes
    prometheus_url: str = ""  # keda asks it


@dataclass(frozen=True, kw_only=True)
class Promise:
    """The load that it was sized for, and what a request may take under it."""

    evidence: str  # "the planner (fitted)", "reports/20261121-demo (measured)"
    isl: float
    osl: float
    concurrency: Reasoned  # requests in flight of each replica
    in_flight: int | None = None  # asked for, on all replicas; None: nobody said
    rate_rps: float | None = None  # of all replicas; None: nobody said
    slos: tuple[str, ...] = ()  # ttft=500ms@p95, as `trtk bench --slo` takes them
    ttft_ms: float | None = None  # predicted or measured, p50
    tpot_ms: float | None = None
    output_tps: float | None = None  # of each replica

    def in_flight_on(self, replicas: int) -> int:
        """Return what REPLICAS are asked to keep in flight, never more than they carry."""
        carried = self.concurrency.whole * replicas
        return min(self.in_flight or carried, carried)


@dataclass(frozen=True, kw_only=True)
class DeploySpec:
    """One deployment of one served folder on one target; the same spec gives the same bytes."""

    target: str  # kubernetes, dynamo, compose, ...
    name: str  # a DNS label of at most 40 characters, unlike that of any other folder
    namespace: str
    model: DeployedModel
    gpu: DeployedGpu
    placement: Placement
    container: DeployedContainer
    volume: ModelVolume
    budgets: Budgets
    replicas: Reasoned
    promise: Promise
    autoscale: Autoscale | None = None
    cost: Cost | None = None  # of all replicas; of an autoscaled one, of the fewest
    is_disaggregated: bool = False  # prefill and decode apart
    settings: Mapping[str, str] = field(default_factory=dict)  # the target's own, defaults filled in
    release: str = ""  # 26.07; empty for the CPU
    trtk: str = ""  # version that wrote it

    @property
    def title(self) -> str:
        """What it is, in a line."""
        card = self.gpu.title if self.gpu.sm else "the CPU"
        return f"{self.model.model} as {self.model.quant} on {card}"
