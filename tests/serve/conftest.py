"""A real tritonserver on a tiny model, and `ps` as the witness of what is left of it."""

import contextlib
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from toolkit import serve
from toolkit.specs import ServeSpec

ECHO = Path(__file__).parent / "echo_repository"


class Witness:
    """What `ps` and /dev/shm show of the servers of one repository."""

    def __init__(self, repository):
        self.repository = repository

    def lines(self):
        listing = subprocess.run(
            ["ps", "-ww", "-eo", "pid=,stat=,args="], check=True, capture_output=True, text=True
        ).stdout
        fields = [line.split(None, 2) for line in listing.splitlines()]
        return [
            line for line in fields if str(self.repository) in line[2] and "triton" in line[2] and line[1][0] != "Z"
        ]

    def pids(self, program):
        return [int(pid) for pid, _, command in self.lines() if command.split()[0].endswith(f"/{program}")]

    def regions(self):
        """The shared memory that the stubs were told to use."""
        stubs = [command.split() for _, _, command in self.lines() if "python_backend_stub" in command.split()[0]]
        return [Path("/dev/shm") / words[2] for words in stubs]


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("TRTK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("TRTK_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path)
    yield
    for one in serve.running():
        serve.stop(one.endpoint.name, timeout_s=0)


@pytest.fixture
def repository(tmp_path):
    return Path(shutil.copytree(ECHO, tmp_path / "echo" / "model_repository"))


@pytest.fixture
def witness(repository):
    return Witness(repository)


@pytest.fixture
def free_ports():
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture
def spec(repository, free_ports):
    http, grpc, metrics = free_ports
    return ServeSpec(
        name="echo",
        repository=str(repository),
        backend="embedded",
        http_port=http,
        grpc_port=grpc,
        metrics_port=metrics,
        startup_timeout_s=60,
        exit_timeout_s=2,
    )
