"""A bundle served by the docker backend, in a stand-in for NVIDIA's image: checked, linked, and Triton's whole line."""

import json

import pytest

from tests.containers.images import image
from tests.e2e.conftest import free_ports
from tests.engine.serving_image import NVIDIA_SMI
from tests.engine.test_first_start import make_bundle
from toolkit import serve
from toolkit.serve import records, targets
from toolkit.specs import ContainerOptions, ServeSpec

pytestmark = [pytest.mark.docker, pytest.mark.slow]
KEY = "sm86-trtllm1.2.1-trt10.14.1.48"
#: Says how it was called, and what a probe asks.
TRITON = """#!/usr/local/bin/python3
import http.server, json, os, signal, sys
named = dict(word[2:].split("=", 1) for word in sys.argv[1:] if "=" in word)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"name": named["id"]}).encode())
    def log_message(self, *words): pass
print(json.dumps({"line": sys.argv[1:], "uid": os.getuid(), "engine": os.readlink("/tmp/trtk/engine")}), flush=True)
http.server.HTTPServer((named["http-address"], int(named["http-port"])), Answer).serve_forever()
"""
DOCKERFILE = """
COPY nvidia-smi tritonserver /usr/local/bin/
COPY gpus.csv /opt/image/gpus.csv
COPY METADATA /opt/packages/tensorrt_llm-1.2.1.dist-info/METADATA
COPY TENSORRT /opt/packages/tensorrt-10.14.1.48.dist-info/METADATA
ENV IMAGE=/opt/image PYTHONPATH=/opt/packages PATH=/usr/local/bin:/bin
"""
METADATA = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n"


@pytest.fixture
def stand_in(docker_daemon):
    return image(
        docker_daemon.client,
        "trtk-test/nvidia:1",
        DOCKERFILE,
        {
            "nvidia-smi": NVIDIA_SMI,
            "tritonserver": TRITON,
            "gpus.csv": "8.6, 20470, NVIDIA RTX A4500\n",
            "METADATA": METADATA.format("tensorrt_llm", "1.2.1"),
            "TENSORRT": METADATA.format("tensorrt", "10.14.1.48"),
        },
    )


def test_a_bundle_is_served_on_the_gpus_that_were_named_by_uuid(docker_daemon, stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("TRTK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("TRTK_CACHE", str(tmp_path / "cache"))
    folder = make_bundle(tmp_path / "small", engine_key=KEY)
    for path in (tmp_path, *folder.rglob("*"), folder):
        path.chmod(0o755)
    target = targets.find(folder)
    http, grpc, metrics = free_ports(3)
    spec = ServeSpec(
        name="small",
        repository=str(target.repository),
        backend="docker",
        http_port=http,
        grpc_port=grpc,
        metrics_port=metrics,
        startup_timeout_s=60,
        exit_timeout_s=2,
        probe_model=target.probe_model,
        folder=str(folder),
        kind=target.artefact.kind,
        container=ContainerOptions(
            image=stand_in, network="host", gpu_uuids=("GPU-0a",), memory_bytes=1 << 30, shm_bytes=1 << 26
        ),
    )

    serve.start(spec)
    try:
        record = records.read("small")
        (container,) = docker_daemon.client.containers.list(filters={"label": f"trtk.job=serve-{record.server_id}"})
        (status,) = serve.running()
        assert (status.state, status.models) == ("ready", ("tensorrt_llm",))
        assert container.attrs["HostConfig"]["DeviceRequests"][0]["DeviceIDs"] == ["GPU-0a"]
        assert container.attrs["HostConfig"]["DeviceRequests"][0]["Capabilities"] == [["gpu"]]
    finally:
        stopped = serve.stop("small")

    log = serve.log_path("small").read_text()
    said = next(json.loads(line) for line in log.splitlines() if line.startswith('{"line"'))
    closed = "model-repository,model-config,shared-memory,trace,logging"
    assert [word.partition(":closed=")[0] for word in said["line"]] == [
        "--model-repository=/bundle/model_repository",
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        "--exit-on-error=true",
        "--log-format=ISO8601",
        "--trace-config=level=OFF",
        "--model-control-mode=none",
        "--allow-sagemaker=false",
        "--allow-vertex-ai=false",
        f"--http-restricted-api={closed}",
        f"--grpc-restricted-protocol={closed}",
        f"--id=trtk-{record.server_id}",
        "--exit-timeout-secs=2",
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
    ]
    assert said["engine"] == f"/bundle/engine/{KEY}"
    assert said["uid"] != 0
    assert (stopped.was_alive, stopped.killed) == (True, 0)
