"""The pod of the kubernetes target, run for real with the CPU image: probes, rights, a rolling restart, a kill."""

import json
import threading
import time
import urllib.request
from collections import Counter

import pytest
import yaml

from tests.docker.kubelet import Pod
from tests.e2e.conftest import run_trtk

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.server, pytest.mark.engine]
NETWORK = "trtk-test-pods"


class Objects:
    """What `trtk deploy kubernetes` wrote, by kind."""

    def __init__(self, folder):
        documents = [one for path in folder.rglob("*.yaml") for one in yaml.safe_load_all(path.read_text()) if one]
        self.by_kind = {one["kind"]: one for one in documents if one["kind"] != "ConfigMap"}
        self.configs = {one["metadata"]["name"]: one for one in documents if one["kind"] == "ConfigMap"}

    def __getitem__(self, kind):
        return self.by_kind[kind]


class Load:
    """Clients behind a balancer that asks ready pods only, one connection a request, as an ingress does."""

    def __init__(self, pods, clients=3):
        self.pods, self.is_over, self.answers, self.errors = pods, False, Counter(), []
        self.threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _ask_on(self):
        while not self.is_over:
            ready = [pod for pod in list(self.pods) if pod.is_ready]
            if not ready:
                time.sleep(0.05)
                continue
            pod = min(ready, key=lambda one: self.answers[one.container.short_id])
            try:
                self._ask(pod)
                self.answers[pod.container.short_id] += 1
            except OSError as error:
                self.errors.append(f"{time.monotonic()} {error}")
                time.sleep(0.2)

    def _ask(self, pod):
        body = json.dumps({"text_input": "def add(a, b)", "max_tokens": 24}).encode()
        with urllib.request.urlopen(f"{pod.url('http')}/v2/models/ensemble/generate", body, timeout=60) as answer:
            assert json.load(answer)["text_output"]

    def end(self):
        self.is_over = True
        for thread in self.threads:
            thread.join(60)


@pytest.fixture(scope="module")
def network(docker_daemon):
    import docker

    try:
        made = docker_daemon.client.networks.create(NETWORK, driver="bridge")
    except docker.errors.APIError as error:
        pytest.skip(f"the daemon can make no network: {error}")
    yield NETWORK
    made.remove()


@pytest.fixture(scope="module")
def objects(engine, image, tmp_path_factory):  # noqa: ARG001 - the image must be there
    folder = tmp_path_factory.mktemp("kubernetes") / "made"
    options = ("--image", "trtk-test/cpu:tiny", "--model-volume", "pvc:models", "--name", "rehearsal")
    load = ("--concurrency", "4", "--isl", "32", "--osl", "16", "--replicas", "2")
    code, _, said = run_trtk("deploy", "kubernetes", engine, *options, *load, "-o", folder)
    assert code == 0, said
    return Objects(folder)


@pytest.fixture
def start(docker_daemon, engine, objects, network, tmp_path):
    started = []

    def start_one():
        template = objects["Deployment"]["spec"]["template"]
        claims = {"models": engine}
        pod = Pod(docker_daemon.client, template, network, claims=claims, configs=objects.configs, folder=tmp_path)
        started.append(pod)
        return pod

    yield start_one
    for pod in started:
        pod.remove()


def until(is_so, timeout_s=150):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_rolling_restart_under_load_loses_no_request_and_a_killed_server_comes_back(objects, start):
    rolling = objects["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxSurge"], rolling["maxUnavailable"]) == (1, 0)
    old = start()
    until(lambda: old.is_ready)
    seen = old.container.exec_run(
        ["sh", "-c", "exec 2>&1; id -u; cat /proc/1/status; mkdir /opt/x /engine/x /x"]
    ).output.decode()
    assert seen.startswith("1000\n")
    assert ("CapEff:\t0000000000000000" in seen, "NoNewPrivs:\t1" in seen) == (True, True)
    assert seen.count("Read-only file system") == 3
    assert old.probe("livenessProbe"), old.said
    pods = [old]
    load = Load(pods)

    # A surge: the new one is ready before the old one is told to go.
    new = start()
    pods.append(new)
    until(lambda: new.is_ready)
    code, seconds = old.delete()
    load_before = sum(load.answers.values())
    until(lambda: sum(load.answers.values()) > load_before + 10)

    assert code == 0
    assert seconds < objects["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] - 15
    assert load.errors == []
    assert min(load.answers[pod.container.short_id] for pod in pods) > 0

    probe = objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    killed = time.monotonic()
    new.container.kill()
    until(lambda: not new.is_ready, 30)
    until(lambda: new.is_ready)
    back_after_s = time.monotonic() - killed
    answered = sum(load.answers.values())
    until(lambda: sum(load.answers.values()) > answered + 10)
    load.end()

    assert (new.restarts, back_after_s < probe["periodSeconds"] * probe["failureThreshold"]) == (1, True)
    assert 0 < len(load.errors) < 30, load.errors  # those in flight, and those that came before anybody knew
