"""`trtk doctor`, and `trtk build` without --gpu, in processes whose driver and Docker daemon are stand-ins."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import save_llama
from tests.machine.nvml_stand_in import driver, nvml_folder  # noqa: F401 - a fixture
from toolkit.cli.local_gpu import choose
from toolkit.errors import UsageError
from toolkit.machine import Nvml
from toolkit.specs.machine import LocalGpu

A4500 = "NVIDIA RTX A4500|8.6|20470|20000"
TOKEN = "hf_canaryCANARYcanaryCANARYcanaryCANARY"
INFO = {
    "ServerVersion": "28.2.2",
    "MemTotal": 64 << 30,
    "SecurityOptions": [],
    "Runtimes": {"runc": {}, "nvidia": {"path": "nvidia-container-runtime"}},
    "DockerRootDir": "/var/lib/docker",
}


class Daemon(BaseHTTPRequestHandler):
    """Answers what a Docker client asks first."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        said = {"ApiVersion": "1.50", "Version": "28.2.2"} if self.path.endswith("/version") else INFO
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Stay silent."""

    def address_string(self):
        return "local"


class UnixServer(ThreadingHTTPServer):
    address_family = socket.AF_UNIX
    daemon_threads = True

    def server_bind(self):
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "local", 0


@pytest.fixture
def docker_host(tmp_path):
    server = UnixServer(str(tmp_path / "docker.sock"), Daemon)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"unix://{tmp_path / 'docker.sock'}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def ctk(tmp_path):
    """A folder with an nvidia-ctk, for PATH."""
    program = tmp_path / "bin" / "nvidia-ctk"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'NVIDIA Container Toolkit CLI version 1.19.1'\n")
    program.chmod(0o755)
    return program.parent


def trtk(environment, *line, cwd):
    command = [sys.executable, "-c", "from toolkit.cli import main; main(prog_name='trtk')", *map(str, line)]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_machine_with_the_card_is_ready_and_no_token_is_shown(nvml_folder, docker_host, ctk, tmp_path):  # noqa: F811
    environment = driver(nvml_folder, A4500) | {
        "DOCKER_HOST": docker_host,
        "HF_TOKEN": TOKEN,
        "PATH": f"{ctk}:{os.environ['PATH']}",
    }

    code, out, said = trtk(environment, "doctor", "--gpu", "a4500", "--json", cwd=tmp_path)

    document = json.loads(out)
    found = {check["name"]: check for check in document["checks"]}
    assert found["NVIDIA driver"]["found"] == "590.44.01, CUDA 13.1; release 26.07 has CUDA 13.1.0"
    assert found["GPU 0"]["found"] == "NVIDIA RTX A4500 (sm_86, a4500): 20000 of 20470 MiB free, GPU-0"
    assert found["Docker"]["found"] == "daemon 28.2.2"
    assert found["NVIDIA container toolkit"] == {
        "name": "NVIDIA container toolkit",
        "status": "ok",
        "found": "1.19.1",
        "hint": "",
    }
    assert found["model hub"]["found"].endswith("; a token is set")
    assert TOKEN not in out + said
    failed = [name for name, check in found.items() if check["status"] == "fail"]
    assert (code, document["is_ready"]) == ((4, False) if failed else (0, True))
    assert set(failed) <= {"packages of trtk[gpu]"}  # of the machine that tests


def test_what_is_missing_is_exit_code_4_with_what_to_do(tmp_path):
    environment = driver(tmp_path) | {"DOCKER_HOST": f"unix://{tmp_path}/none.sock", "COLUMNS": "200"}

    code, out, said = trtk(environment, "doctor", "--gpu", "a4500", cwd=tmp_path)

    assert code == 4
    assert said.startswith("Error: 2 things are missing for NVIDIA RTX A4500: NVIDIA driver, Docker.\nHint: ")
    assert "packages of trtk[convert]" in out
    assert "FAIL" in out


def test_a_machine_without_a_gpu_is_looked_at_as_a_cpu(tmp_path):
    code, out, _ = trtk(driver(tmp_path), "doctor", "--json", cwd=tmp_path)

    document = json.loads(out)
    assert (code, document["gpu"], document["is_ready"]) == (0, "cpu", True)


def test_a_taken_port_names_its_holder(tmp_path):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8002))
        except OSError:
            pytest.skip("port 8002 is taken here")
        taken.listen()
        _, out, _ = trtk(driver(tmp_path), "doctor", "--json", cwd=tmp_path)

    found = {check["name"]: check for check in json.loads(out)["checks"]}
    assert found["port 8002"]["status"] == "warn"
    assert found["port 8002"]["found"].startswith(f"taken by pid {os.getpid()}, ")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "hf"
    save_llama(folder, hidden_size=256, num_attention_heads=4, num_key_value_heads=2)
    return folder


@pytest.mark.parametrize(
    ("cards", "gpu", "said"),
    [
        ([A4500, A4500], "a4500", "--gpu a4500: NVIDIA RTX A4500 is in this machine."),
        ([], "cpu", "--gpu cpu: no NVIDIA driver is installed."),
    ],
)
def test_a_build_without_gpu_takes_the_local_card(nvml_folder, model, tmp_path, cards, gpu, said):  # noqa: F811
    environment = driver(nvml_folder if cards else tmp_path, *cards)
    line = ["build", model, "--quant", "int4_rtn", "--dry-run", "--json"]

    code, out, err = trtk(environment, *line, cwd=tmp_path)

    assert code == 0, err
    assert json.loads(out)["plan"]["gpu"]["name"] == gpu
    assert said in err.splitlines()


def card(title, name, **changes):
    return LocalGpu(**{"uuid": "GPU-0", "title": title, "name": name, "sm": 86, "memory_total_mib": 20470} | changes)


def test_several_kinds_of_card_are_a_question():
    with pytest.raises(UsageError) as refused:
        choose(Nvml(gpus=(card("NVIDIA RTX A4500", "a4500"), card("NVIDIA L4", "l4", sm=89))))

    assert str(refused.value) == "This machine has several kinds of GPU: a4500, l4."
    assert refused.value.hint == "Say which: --gpu a4500"


def test_a_card_that_nobody_knows_is_a_question():
    with pytest.raises(UsageError, match=r"NVIDIA T1000 \(sm_75, 4096 MiB\) is not in the catalogue\."):
        choose(Nvml(gpus=(card("NVIDIA T1000", "", sm=75, memory_total_mib=4096),)))


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="this machine has no NVIDIA driver")
@pytest.mark.gpu
def test_the_real_driver_is_read():
    from toolkit import machine

    assert machine.look().gpus[0].sm >= 70
