"""Looking at this machine, as far as a build or a server depends on it. Nothing is started, changed or downloaded."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path

from toolkit import containers, processes
from toolkit.errors import MissingError
from toolkit.machine.nvml import Nvml, look

SHM = Path("/dev/shm")
PORTS = (8000, 8001, 8002)
EXTRAS = ("convert", "cpu", "gpu")
#: Where CDI, the newer way into containers, is described; a daemon that uses it has no runtime named nvidia.
CDI_FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))


@dataclass(frozen=True, kw_only=True)
class DockerFacts:
    """The Docker daemon, and whether it can give GPUs to containers."""

    version: str = ""
    fault: str = ""
    hint: str = ""
    has_nvidia: bool = False  # a runtime named nvidia, or CDI devices of NVIDIA's
    root: str = ""  # where images lie; on this machine, or on the daemon's


@dataclass(frozen=True, kw_only=True)
class Port:
    """A TCP port that a server wants."""

    number: int
    is_free: bool
    holder: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found."""

    nvml: Nvml = field(default_factory=Nvml)
    docker: DockerFacts = field(default_factory=DockerFacts)
    nvidia_ctk: str = ""  # version of the NVIDIA container toolkit; empty: not on PATH
    free_bytes: dict[str, int] = field(default_factory=dict)  # by folder
    shm_bytes: int = 0
    memory_bytes: int = 0
    available_bytes: int = 0
    ports: tuple[Port, ...] = ()
    missing_packages: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by extra
    has_token: bool = False
    is_offline: bool = False
    hub: str = ""


def look_around(folders: tuple[Path, ...]) -> Facts:
    """Return what this machine has; FOLDERS are those that will be written to."""
    memory, docker = _memory(), look_at_docker()
    if docker.root and Path(docker.root).is_dir():
        folders = (*folders, Path(docker.root))
    return Facts(
        nvml=look(),
        docker=docker,
        nvidia_ctk=_nvidia_ctk(),
        free_bytes={str(folder): _free(folder) for folder in folders},
        shm_bytes=shutil.disk_usage(SHM).total if SHM.is_dir() else 0,
        memory_bytes=memory.get("MemTotal", 0),
        available_bytes=memory.get("MemAvailable", 0),
        ports=tuple(_port(number) for number in PORTS),
        missing_packages={extra: _missing(extra) for extra in EXTRAS},
        has_token=_has_token(),
        is_offline=os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"},
        hub=os.environ.get("HF_ENDPOINT") or "https://huggingface.co",
    )


def look_at_docker() -> DockerFacts:
    """Ask the Docker daemon; a machine without one is an answer, no error."""
    try:
        daemon = containers.connect()
    except MissingError as missing:
        return DockerFacts(fault=str(missing).rstrip("."), hint=missing.hint or "")
    try:
        said = daemon.client.info()
    finally:
        daemon.close()
    devices = [device.get("ID", "") for device in said.get("DiscoveredDevices") or ()]
    is_cdi = any(device.startswith("nvidia.com/gpu") for device in devices) or any(
        list(folder.glob("nvidia*")) for folder in CDI_FOLDERS if folder.is_dir()
    )
    return DockerFacts(
        version=daemon.version,
        has_nvidia="nvidia" in (said.get("Runtimes") or {}) or is_cdi,
        root=str(said.get("DockerRootDir") or ""),
    )


def _nvidia_ctk() -> str:
    import subprocess

    program = shutil.which("nvidia-ctk")
    if program is None:
        return ""
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, timeout=10)
        found = re.search(r"(\d+\.\d+\.\d+)", done.stdout)
        return found[1] if found else "unknown"
    return "unknown"


def _free(folder: Path) -> int:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def _memory() -> dict[str, int]:
    """Return /proc/meminfo in bytes."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    found = (re.match(r"(\w+):\s+(\d+) kB", line) for line in lines)
    return {one[1]: int(one[2]) << 10 for one in found if one}


def _port(number: int) -> Port:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            pid = processes.port_holder(number)
            return Port(number=number, is_free=False, holder=f"pid {pid}, {processes.command(pid)}" if pid else "")
    return Port(number=number, is_free=True)


def _missing(extra: str) -> tuple[str, ...]:
    """Return the packages of one of trtk's extras that are not installed."""
    try:
        asked = importlib.metadata.requires("trtk") or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    names = [re.match(r"[\w.-]+", line) for line in asked if re.search(rf"extra == ['\"]{extra}['\"]", line)]
    return tuple(sorted({name[0] for name in names if name and not _is_installed(name[0])}))


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _has_token() -> bool:
    """Whether the hub's client would find a token; which one is nobody's business."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface").expanduser()
    path = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    return any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")) or path.is_file()
