"""The docker backend on a real daemon, with the real CPU engine: served, asked, killed, started again, stopped."""

import dataclasses
import json
import os
import re
import signal
import time
import urllib.request

import pytest

from tests.e2e.conftest import free_ports
from toolkit import processes, serve
from toolkit.errors import MissingError
from toolkit.serve import containment, records, supervising
from toolkit.serve.backend import MARKER
from toolkit.specs import ContainerOptions, ServeSpec, to_json

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.server, pytest.mark.engine]
NETWORK = "trtk-test-serving"


@pytest.fixture(scope="module")
def network(docker_daemon):
    """A network whose ports are published; the host's where the daemon cannot make one."""
    import docker

    try:
        made = docker_daemon.client.networks.create(NETWORK, driver="bridge")
    except docker.errors.APIError:
        yield "host"
        return
    yield NETWORK
    made.remove()


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTK_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(supervising, "BACKOFF_S", 0.2)
    yield
    for one in serve.running():
        serve.stop(one.endpoint.name, timeout_s=0)


@pytest.fixture
def spec(engine, image, network):  # noqa: ARG001 - the image must be there
    http, grpc, metrics = free_ports(3)
    return ServeSpec(
        name="boxed",
        repository=str(engine / "model_repository"),
        backend="docker",
        http_port=http,
        grpc_port=grpc,
        metrics_port=metrics,
        startup_timeout_s=150,
        exit_timeout_s=4,
        folder=str(engine),
        kind="openvino",
        max_restarts=3,
        container=ContainerOptions(
            image="trtk-test/cpu:tiny", network=network, memory_bytes=3 << 30, cpus=2.0, shm_bytes=1 << 28, pids=512
        ),
    )


def containers_of(daemon, server_id):
    return daemon.client.containers.list(all=True, filters={"label": f"trtk.job=serve-{server_id}"})


def ask(endpoint):
    body = json.dumps({"text_input": "def add(a, b)", "max_tokens": 4}).encode()
    with urllib.request.urlopen(f"{endpoint.http_url}/v2/models/ensemble/generate", body, timeout=60) as answer:
        return json.load(answer)["text_output"]


def until(is_so, timeout_s=150.0):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, to_json(serve.running())
        time.sleep(0.2)


def status():
    (found,) = serve.running()
    return found


def test_a_container_serves_with_the_least_it_needs_and_comes_back_when_it_is_killed(docker_daemon, spec, network):
    endpoint = serve.start(spec)
    serve.start_supervisor(endpoint)
    server_id = records.read("boxed").server_id
    (container,) = containers_of(docker_daemon, server_id)
    first = ask(endpoint)

    config, host = container.attrs["Config"], container.attrs["HostConfig"]
    assert first
    assert (status().state, status().container) == ("ready", container.short_id)
    assert config["User"] == ("1000:1000" if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}")
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (3 << 30, 3 << 30, 512)
    assert (host["ShmSize"], host["NanoCpus"], host["IpcMode"]) == (1 << 28, 2 * 10**9, "private")
    assert [(mount["Destination"], mount["RW"]) for mount in container.attrs["Mounts"]] == [("/engine", False)]
    assert "TRTK_SERVER_ID" not in str(config["Env"])
    if network != "host":
        published = container.attrs["NetworkSettings"]["Ports"]
        assert {name: [(one["HostIp"], one["HostPort"]) for one in ports] for name, ports in published.items()} == {
            "8000/tcp": [("127.0.0.1", str(spec.http_port))],
            "8001/tcp": [("127.0.0.1", str(spec.grpc_port))],
            "8002/tcp": [("127.0.0.1", str(spec.metrics_port))],
        }

    container.kill()
    until(lambda: status().state != "ready", timeout_s=15)
    until(lambda: status().state == "ready")
    assert (status().restarts, ask(endpoint)) == (1, first)
    assert "container ended by SIGKILL." in status().last_failure  # seen at the daemon, or told by who runs it

    os.kill(status().endpoint.pid, signal.SIGKILL)
    until(lambda: status().state != "ready", timeout_s=15)
    until(lambda: status().state == "ready")
    assert (status().restarts, ask(endpoint)) == (2, first)
    assert len(containers_of(docker_daemon, server_id)) == 1

    stopped = serve.stop("boxed")

    assert (stopped.was_alive, stopped.killed) == (True, 0)
    assert containers_of(docker_daemon, server_id) == []
    assert (processes.marked(MARKER, server_id), serve.running()) == (set(), ())
    assert "Stopped engine." in serve.log_path("boxed").read_text()


def test_a_stop_cleans_up_after_a_server_whose_every_process_was_killed(docker_daemon, spec):
    serve.start(spec)
    server_id = records.read("boxed").server_id
    for one in processes.marked(MARKER, server_id):
        os.kill(one.pid, signal.SIGKILL)
    until(lambda: status().state == "dead", timeout_s=15)
    assert len(containers_of(docker_daemon, server_id)) == 1

    stopped = serve.stop("boxed")

    assert (stopped.was_alive, stopped.killed) == (False, 1)
    assert (containers_of(docker_daemon, server_id), serve.running()) == ([], ())


def test_an_image_that_is_not_there_is_said_before_anything_starts(spec):
    nowhere = dataclasses.replace(spec.container, image="127.0.0.1:1/none:1")

    with pytest.raises(MissingError, match=r"The image 127\.0\.0\.1:1/none:1 could not be pulled"):
        serve.start(dataclasses.replace(spec, container=nowhere))

    assert (serve.running(), list(records.folder().glob("*.json"))) == ((), [])


def test_what_is_served_is_what_was_first_pinned(spec, image):
    """A tag that moves between a start and a restart changes nothing."""
    from toolkit.serve import backend
    from toolkit.specs import no_progress

    prepared = backend.pick("docker").prepare(spec, no_progress)
    made = containment.container(prepared, backend.Identity(server_id="ab" * 16, secret=""))

    assert re.fullmatch(r"sha256:[0-9a-f]{64}", made.image)
    assert made.image == image.id == prepared.container.image_digest
