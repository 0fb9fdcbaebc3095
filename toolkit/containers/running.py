"""One container from its creation to its removal, however the work in it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.containers import owners
from toolkit.containers.daemon import Daemon, daemon_errors_named, explanation
from toolkit.errors import BuildError, MissingError

#: A daemon whose own limit is lower, a rootless one for example, may not raise it for a container.
RLIMIT_REFUSED = "setting rlimit"
#: For a daemon to hand out the last lines of a container that has ended.
LAST_LINES_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of this machine in the container."""

    source: str
    target: str
    is_read_only: bool = True


@dataclass(frozen=True, kw_only=True)
class Published:
    """A port of a container that this machine listens on."""

    address: str
    port: int
    container_port: int


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """What runs, and all that it may touch: no capability, no files but mounts and tmpfs, no network but the named."""

    job: str  # whose it is; names and labels are made of it
    name: str = ""  # trtk-JOB-… where there is none
    image: str
    command: tuple[str, ...]
    user: str  # uid:gid
    working_dir: str
    mounts: tuple[Mount, ...]
    environment: Mapping[str, str]
    tmpfs: Mapping[str, str]  # path → options
    memory_bytes: int
    pids: int
    shm_bytes: int
    gpu_uuids: tuple[str, ...] = ()
    ulimits: Mapping[str, int] = field(default_factory=dict)  # -1: no limit
    network: str = "none"
    ports: tuple[Published, ...] = ()
    cpus: float = 0.0  # 0: all
    log_options: Mapping[str, str] = field(default_factory=dict)  # of the driver json-file


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a container ended."""

    exit_code: int
    is_oom_killed: bool

    @property
    def how(self) -> str:
        """`by SIGKILL`, `with exit code 3`; a program may take a number above 128 for itself."""
        memory = "; it used more memory than it may" if self.is_oom_killed else ""
        try:
            return f"by {signal.Signals(self.exit_code - 128).name}{memory}"
        except ValueError:
            return f"with exit code {self.exit_code}{memory}"


def run(
    daemon: Daemon, spec: ContainerSpec, *, on_line: Callable[[str], None], on_note: Callable[[str], None]
) -> Ended:
    """Run a container to its end, each line of its output to ON_LINE; it is removed in every case."""
    with daemon_errors_named(daemon), contextlib.ExitStack() as stack:
        try:
            container, output = _started(daemon, spec, stack)
        except _RlimitRefusedError:
            on_note(f"The Docker daemon at {daemon.host} may not raise limits; the container runs with its own.")
            stack.close()
            container, output = _started(daemon, dataclasses.replace(spec, ulimits={}), stack)
        for line in _lines(_until_its_end(container, output)):
            on_line(line)
        code = container.wait()["StatusCode"]
        container.reload()
        return Ended(exit_code=code, is_oom_killed=bool(container.attrs["State"]["OOMKilled"]))


class _RlimitRefusedError(Exception):
    pass


def _started(daemon: Daemon, spec: ContainerSpec, stack: contextlib.ExitStack) -> tuple[Any, Any]:
    import docker

    container = daemon.client.containers.create(**_arguments(spec))
    stack.callback(owners.remove, container)
    try:
        container.start()
    except docker.errors.APIError as error:
        said = explanation(error)
        if spec.ulimits and RLIMIT_REFUSED in said:
            raise _RlimitRefusedError(said) from error
        raise _not_started(spec, said) from error
    output = container.logs(stream=True, follow=True)
    stack.callback(output.close)
    return container, output


def _arguments(spec: ContainerSpec) -> dict[str, Any]:
    from docker.types import DeviceRequest, LogConfig, Ulimit
    from docker.types import Mount as DockerMount

    return {
        # A version may have a plus, a container may not; and a job may have several containers.
        "name": spec.name or f"trtk-{spec.job.replace('+', '-')}-{uuid.uuid4().hex[:6]}",
        "image": spec.image,
        "command": list(spec.command),
        "user": spec.user,
        "working_dir": spec.working_dir,
        "environment": dict(spec.environment),
        "labels": owners.labels(spec.job),
        "mounts": [
            DockerMount(mount.target, mount.source, type="bind", read_only=mount.is_read_only) for mount in spec.mounts
        ],
        # Whatever the daemon's default: it is read from here.
        "log_config": LogConfig(type=LogConfig.types.JSON, config=dict(spec.log_options)),
        "tmpfs": dict(spec.tmpfs),
        "read_only": True,
        "network_mode": spec.network,
        "ports": {f"{one.container_port}/tcp": (one.address, one.port) for one in spec.ports},
        "ipc_mode": "private",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "shm_size": spec.shm_bytes,
        "mem_limit": spec.memory_bytes,
        "memswap_limit": spec.memory_bytes,
        "pids_limit": spec.pids,
        "nano_cpus": int(spec.cpus * 1e9) or None,
        "ulimits": [Ulimit(name=name, soft=value, hard=value) for name, value in spec.ulimits.items()],
        "device_requests": [DeviceRequest(device_ids=list(spec.gpu_uuids), capabilities=[["gpu"]])]
        if spec.gpu_uuids
        else [],
    }


def _not_started(spec: ContainerSpec, said: str) -> Exception:
    if "could not select device driver" in said or "nvidia-container" in said:
        return MissingError(
            f"Docker cannot give a container the GPU {', '.join(spec.gpu_uuids)}: {said}.",
            hint="Install the NVIDIA container toolkit, then: sudo nvidia-ctk runtime configure --runtime=docker, "
            "sudo systemctl restart docker",
        )
    if "executable file not found" in said:
        return MissingError(
            f"The image {spec.image} has no {spec.command[0]}.", hint="`trtk releases` lists images that have it."
        )
    return BuildError(f"The container could not be started: {said}.")


def _until_its_end(container: Any, output: Any) -> Iterator[bytes]:
    """Yield what a container says until it has ended.

    A daemon can miss that a container is gone, and leave the stream open for ever: then the rest is read from its log.
    """
    import docker
    import requests

    is_read, is_cut = threading.Event(), threading.Event()

    def cut_after_the_end() -> None:
        with contextlib.suppress(docker.errors.APIError, requests.RequestException):
            container.wait()
            if not is_read.wait(LAST_LINES_TIMEOUT_S):
                is_cut.set()
                output.close()

    threading.Thread(target=cut_after_the_end, daemon=True).start()
    seen_bytes = 0
    try:
        for piece in output:
            seen_bytes += len(piece)
            yield piece
    finally:
        is_read.set()
    if is_cut.is_set():
        yield container.logs()[seen_bytes:]


def _lines(output: Iterable[bytes]) -> Iterator[str]:
    """Yield whole lines; a progress line that is overwritten with carriage returns is several."""
    rest = b""
    for piece in output:
        *whole, rest = (rest + piece).replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
