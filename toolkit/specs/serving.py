"""What is served, how it is kept alive, and what it is to a client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Companion:
    """A further process of a server: started once Triton is ready, watched and stopped with it.

    It finds the server's id in $TRTK_SERVER_ID and the secret of Triton's closed APIs in $TRTK_CLOSED_SECRET (the
    header `closed`, over gRPC the metadata `triton-grpc-protocol-closed`). What is said here is shown by
    `trtk status --json`: no secrets.
    """

    name: str  # gateway
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_url: str = ""  # GET answers 200 once it is ready; empty: it counts as ready when it runs
    ready_timeout_s: float = 60.0
    url: str = ""  # what clients use; empty: nothing for them
    ports: Mapping[str, int] = field(default_factory=dict)  # by the option that sets each: {"--openai-port": 9000}
    outlasts_triton: bool = False  # it is told to end once Triton has: what Triton still answers goes through it


@dataclass(frozen=True, kw_only=True)
class ContainerOptions:
    """How the docker backend runs Triton; zero and empty values are decided from what is served."""

    image: str = ""  # by tag or digest; the release's own
    image_id: str = ""  # what the tag was when the server was first started; later starts take the same
    image_digest: str = ""  # NAME@sha256:…, where it came from a registry
    network: str = "bridge"  # host: no network of its own
    gpu_uuids: tuple[str, ...] = ()
    memory_bytes: int = 0
    cpus: float = 0.0
    shm_bytes: int = 0
    pids: int = 4096
    is_rootless: bool = False  # the daemon's root is the user who runs it


@dataclass(frozen=True, kw_only=True)
class ServeSpec:
    """One server to start."""

    name: str
    repository: str
    backend: str  # embedded, docker
    host: str = "127.0.0.1"
    http_port: int = 8000
    triton_http_port: int = 0  # Triton's own, on loopback, where a companion answers at http_port; 0: there is none
    grpc_port: int = 8001
    metrics_port: int = 8002
    startup_timeout_s: float = 180.0
    exit_timeout_s: float = 10.0
    probe_model: str = "ensemble"  # asked for one token before the server counts as ready
    is_remote_allowed: bool = False  # True: it may listen beyond loopback
    folder: str = ""  # what `trtk build` made, where the repository is part of one
    kind: str = ""  # of what was built: openvino, trtllm, llmapi
    is_verified: bool = True  # False: files are taken as they are
    max_restarts: int = 0  # in a row, after a server that was ready failed
    probe_every_s: float = 30.0  # while nothing else is answered; 0: never
    companions: tuple[Companion, ...] = ()
    leftovers: tuple[str, ...] = ()  # files and folders of this server alone: they go when it is stopped
    is_pool: bool = False  # models are loaded and unloaded while it runs, by a companion that knows the secret
    container: ContainerOptions = ContainerOptions()


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """What a running server is to a client."""

    name: str
    http_url: str  # http://127.0.0.1:8000
    grpc_url: str  # 127.0.0.1:8001
    metrics_url: str  # http://127.0.0.1:8002/metrics
    pid: int
    log_path: str
    started_at: str  # ISO 8601, UTC
    spec: ServeSpec
