"""The Slurm target: the batch script runs against stand-ins of Slurm's programs, which keep to their contract."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.deploy.deployments import spec_of
from tests.engine.serving_image import Image
from tests.engine.test_first_start import A4500, make_bundle
from toolkit import deploy
from toolkit.deploy.targets import slurm
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import ModelVolume

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
#: A step: one process a task, each with its rank, its container's paths being folders of this machine. As srun of Slurm
#: 22.05 does, it kills them when it is told to end itself; `scancel --signal` is what reaches them.
SRUN = """#!{python}
import json, os, pathlib, signal, subprocess, sys
here = pathlib.Path(os.environ["STANDINS"])
options, words = {{}}, sys.argv[1:]
while words and words[0].startswith("--"):
    name, _, value = words.pop(0).partition("=")
    options[name] = value
with (here / "steps.log").open("a") as log:
    log.write(json.dumps([dict(options, env=os.environ["SRUN_CPUS_PER_TASK"]), words]) + "\\n")
mounts = [mount.split(":") for mount in options.get("--container-mounts", "").split(",") if mount]
def inside(word):
    for source, target, *_ in mounts:
        if word == target or word.startswith(target + "/"):
            return source + word[len(target):]
    return word
tasks, running = int(options["--ntasks"]), []
signal.signal(signal.SIGTERM, lambda *_: [process.kill() for process in running])
signal.signal(signal.SIGUSR1, lambda *_: [process.terminate() for process in running])
(here / "step.pid").write_text(str(os.getpid()))
for rank in range(tasks):
    own = dict(os.environ, SLURM_PROCID=str(rank), SLURM_STEP_NUM_TASKS=str(tasks), SLURM_NTASKS=str(tasks))
    running.append(subprocess.Popen([inside(word) for word in words], env=own))
sys.exit(max(process.wait() & 255 for process in running))
"""
SCANCEL = """#!/bin/sh
echo "$*" >> "$STANDINS/scancel.log"
case "$*" in
  "--signal=TERM 4700_1") kill -USR1 "$(cat "$STANDINS/step.pid")" ;;
  "--signal=KILL 4700_1") kill -TERM "$(cat "$STANDINS/step.pid")" ;;
  *) exit 2 ;;
esac
"""
CURL = """#!/bin/sh
[ -e "$STANDINS/ready" ]
"""
#: Stands for the deep probe: says how it was called.
PROBE = """
import json, os, pathlib, sys
here = pathlib.Path(os.environ["STANDINS"])
with (here / "probes.log").open("a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit((here / "hangs").exists())
"""
#: Stands for tritonserver: says how it was called, then serves until it is told to stop, or ends as it is told.
TRITON = """#!{python}
import json, os, pathlib, signal, sys, time
here = pathlib.Path(os.environ["STANDINS"])
job, rank = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_PROCID")
def stop(*_):
    if (here / "deaf").exists():
        return
    (here / f"ended-{{job}}-{{rank}}").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
with (here / "servers.log").open("a") as log:
    log.write(json.dumps([os.environ.get("SLURM_PROCID"), os.environ.get("HF_TOKEN"), sys.argv[1:]]) + "\\n")
if (here / "fails").exists():
    sys.exit(7)
time.sleep(60)
"""


class Cluster:
    """A node with a job on it."""

    def __init__(self, folder, flow="engine", *, tp=1, **made):
        self.folder, self.bundle = folder, folder / "bundle"
        self.image = Image(folder / "image")
        self.image.set_gpus(*[A4500] * tp)
        make_bundle(self.bundle, ranks=tp, flow=flow, **made)
        bin_dir = self.image.folder / "bin"
        for name, text in {"srun": SRUN, "scancel": SCANCEL, "curl": CURL, "tritonserver": TRITON}.items():
            (bin_dir / name).write_text(text.format(python=sys.executable) if "{python}" in text else text)
            (bin_dir / name).chmod(0o755)
        self.squash = folder / "image.sqsh"
        self.squash.write_bytes(b"an image")
        digest = hashlib.sha256(b"an image").hexdigest()
        (folder / "image.sqsh.sha256").write_text(f"{digest}  image.sqsh\n")

    def submit(self, spec, **changes):
        texts = deploy.render(spec)
        script = self.folder / "serve.sbatch"
        script.write_text(texts["serve.sbatch"])
        (self.folder / "probe.py").write_text(PROBE)
        environment = {
            "PATH": f"{self.image.folder / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(self.image.folder / "packages"),
            "IMAGE": str(self.image.folder),
            "STANDINS": str(self.folder),
            "HF_TOKEN": "hf_of_the_user",
            "SLURM_JOB_ID": "4711",
            "SLURM_ARRAY_JOB_ID": "4700",
            "SLURM_ARRAY_TASK_ID": "1",
            "SLURM_JOB_NUM_NODES": str(spec.placement.nodes),
            "SLURM_SUBMIT_DIR": str(self.folder),
            "TRTK_MODEL": str(self.bundle),
            "TRTK_ENGINES": str(self.folder / "engines"),
            "TRTK_IMAGE": str(self.squash),
            "TRTK_PROBE_S": "0.2",
            "TRTK_ALIVE_S": "0.02",
            "TRTK_STOP_S": "20",
            **changes,
        }
        return subprocess.Popen(
            ["bash", str(script)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def said(self, name):
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def wait_for_servers(self, count):
        deadline = time.monotonic() + 60
        while len(self.said("servers.log")) < count:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def wait_for(self, path):
        deadline = time.monotonic() + 60
        while not list(self.folder.glob(path)):
            assert time.monotonic() < deadline, path
            time.sleep(0.05)


@pytest.fixture
def scratch():
    yield Path("/tmp/trtk-4711")
    shutil.rmtree("/tmp/trtk-4711", ignore_errors=True)


CASES = {
    "engine": ("engine", 1, 1),
    "engine, two ranks": ("engine", 2, 1),
    "engine, two nodes": ("engine", 16, 2),
    "llmapi": ("llmapi", 1, 1),
    "llmapi, two nodes": ("llmapi", 4, 2),
    "openvino": ("openvino", 1, 1),
}


@pytest.mark.parametrize(("flow", "tp", "nodes"), CASES.values(), ids=CASES)
def test_the_scripts_are_what_shellcheck_and_bash_take(tmp_path, flow, tp, nodes):
    texts = deploy.render(spec_of("slurm", flow, tp=tp, nodes=nodes))

    for name in ("serve.sbatch", "import-image.sh"):
        (tmp_path / name).write_text(texts[name])
        done = subprocess.run([SHELLCHECK, tmp_path / name], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")
    assert deploy.render(spec_of("slurm", flow, tp=tp, nodes=nodes)) == texts


def test_what_a_model_is_called_is_nobodys_command():
    spec = spec_of("slurm")
    model = dataclasses.replace(spec.model, model="a\nrm -rf /", folder="b\ntouch $(c)")
    odd = ModelVolume(kind="hostpath", source="/models/it's $(here) \"}")

    texts = deploy.render(dataclasses.replace(spec, model=model, volume=odd))

    assert not re.search(r"^(rm -rf /|touch)", texts["serve.sbatch"] + texts["import-image.sh"], re.MULTILINE)
    line = re.search(r"^model=.*$", texts["serve.sbatch"], re.MULTILINE)[0]
    done = subprocess.run(["bash", "-c", f'{line}; printf %s "$model"'], capture_output=True, text=True, check=True)
    assert done.stdout == odd.source


def options_of(script):
    """Return the #SBATCH lines that Slurm reads: those before the first command."""
    head = script.partition("\nset -")[0].splitlines()
    assert all(line.startswith("#") for line in head)
    return dict(
        re.fullmatch(r"#SBATCH --([a-z-]+)=?(.*)", line).groups() for line in head if line.startswith("#SBATCH")
    )


def test_a_job_asks_for_what_one_server_takes():
    settings = {"partition": "gpu", "account": "llm", "gpu_type": "a4500", "time_limit": "1-00:00:00"}

    asked = options_of(deploy.render(spec_of("slurm", tp=16, nodes=2, settings=settings))["serve.sbatch"])

    assert asked == {
        "job-name": "demo-a4500-int4",
        "array": "0-1",
        "nodes": "2",
        "ntasks-per-node": "8",
        "gpus-per-node": "a4500:8",
        "cpus-per-task": "1",
        "mem": "16384M",
        "time": "1-00:00:00",
        "partition": "gpu",
        "account": "llm",
        "exclusive": "user",
        "signal": "B:TERM@50",
        "requeue": "",
        "open-mode": "append",
        "output": "%x-%j.log",
        "export": "NONE",
    }


def test_every_rank_is_a_process_of_the_step_and_the_first_alone_answers(tmp_path, scratch):
    cluster = Cluster(tmp_path, tp=2)
    job = cluster.submit(spec_of("slurm", tp=2))
    cluster.wait_for_servers(2)
    (tmp_path / "ready").touch()
    cluster.wait_for("*.address")
    address = (tmp_path / "demo-a4500-int4-4711.address").read_text().split()[1:]
    job.send_signal(signal.SIGTERM)
    out, said = job.communicate(timeout=60)

    assert job.returncode == 0, said
    assert sorted(path.name for path in tmp_path.glob("ended-*")) == ["ended-4711-0", "ended-4711-1"]
    assert address == ["8010", "8011", "8012"]
    assert "Ready: http on 127.0.0.1:8010, gRPC on 8011, metrics on 8012" in out
    (first, _, own), (second, token, other) = sorted(cluster.said("servers.log"))
    assert (first, second, token) == ("0", "1", None)
    assert {"--id=rank0", "--http-address=127.0.0.1", "--model-control-mode=none"} <= set(own)
    assert {"--id=rank1", "--allow-http=false", "--load-model=tensorrt_llm"} <= set(other)
    assert "--backend-config=python,shm-region-prefix-name=prefix1_" in other
    assert "mpirun" not in json.dumps(cluster.said("steps.log"))
    _, (building, build), (serving, _), _ = cluster.said("steps.log")
    assert (building["--ntasks"], build[-3:]) == ("1", ["--build-only", "--gpus", "1"])
    # Compiling has the CPUs of all ranks of the node; a rank has those that the job asked for it.
    assert (building["--cpus-per-task"], serving["env"]) == ("4", "2")
    assert (serving["--ntasks"], serving["--mpi"], serving["--kill-on-bad-exit"]) == ("2", "pmix", "1")
    assert serving["--container-mounts"].split(",")[0] == f"{cluster.bundle}:/bundle:ro"
    assert not scratch.exists()
    assert not list(tmp_path.glob("*.address"))


def test_the_llm_api_gets_its_launcher_and_starts_no_rank_itself():
    several = slurm.command(spec_of("slurm", "llmapi", tp=4, nodes=2))
    one = slurm.command(spec_of("slurm", "llmapi"))

    assert several[:6] == ["trtllm-llmapi-launch", "python3", "/bundle/start.py", "--gpus", "2", "--"]
    assert one[:3] == ["python3", "/bundle/start.py", "--"]
    assert '--grpc-port="$grpc"' in several


def test_a_cpu_engine_listens_where_the_job_says():
    words = slurm.command(spec_of("slurm", "openvino"))

    assert words[:9] == [
        *("trtk", "serve", "/engine", "--backend", "embedded", "--host", '"$listen"', "--allow-remote", "--http-port")
    ]
    assert words[9:14] == ['"$http"', "--grpc-port", '"$grpc"', "--metrics-port", '"$metrics"']


def test_a_server_that_fails_is_started_again_and_the_job_fails_at_last(tmp_path, scratch):
    cluster = Cluster(tmp_path)
    (tmp_path / "fails").touch()

    job = cluster.submit(spec_of("slurm"), TRTK_RESTARTS="1")
    _, said = job.communicate(timeout=60)

    assert job.returncode == 7
    assert len(cluster.said("servers.log")) == 2
    assert said.count("The server ended with exit code 7") == 2
    assert "1 restarts are left" in said
    assert not scratch.exists()


def test_a_server_that_is_not_ready_in_time_is_ended(tmp_path, scratch):
    cluster = Cluster(tmp_path)

    job = cluster.submit(spec_of("slurm"), TRTK_RESTARTS="0", TRTK_STARTUP_S="1")
    _, said = job.communicate(timeout=60)

    assert job.returncode != 0  # of whatever was asked to end: start.py, or the server
    assert "Error: it was not ready within 1 s." in said
    assert not scratch.exists()


def test_an_engine_that_answers_nobody_is_started_again_however_deaf_it_is(tmp_path, scratch):
    """Triton stays ready when its engine hangs, and with a stream left open it does not end when it is asked."""
    cluster = Cluster(tmp_path)
    for name in ("ready", "hangs", "deaf"):
        (tmp_path / name).touch()

    job = cluster.submit(spec_of("slurm"), TRTK_RESTARTS="1", TRTK_STOP_S="0.3")
    _, said = job.communicate(timeout=60)

    assert job.returncode == 247, said  # killed
    assert not scratch.exists()
    assert said.count("Error: the engine answered nobody, 10 times in a row.") == 2
    assert len(cluster.said("servers.log")) == 2
    assert (tmp_path / "scancel.log").read_text().splitlines() == ["--signal=TERM 4700_1", "--signal=KILL 4700_1"] * 2
    asked = cluster.said("probes.log")[0]
    assert asked[:8] == ["--model", "ensemble", "--http", "8010", "--metrics", "8012", "--timeout", "20"]


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda cluster: cluster.squash.write_bytes(b"another"), "is not what ./import-image.sh left."),
        (lambda cluster: cluster.squash.unlink(), "./import-image.sh makes them."),
        (lambda cluster: (cluster.bundle / "manifest.json").unlink(), "holds nothing that `trtk build` made."),
    ],
    ids=["another image", "no image", "no model"],
)
def test_a_job_that_cannot_serve_says_why_before_it_starts_anything(tmp_path, break_it, said):
    cluster = Cluster(tmp_path)
    break_it(cluster)

    job = cluster.submit(spec_of("slurm"))
    _, heard = job.communicate(timeout=60)

    assert job.returncode == 4
    assert said in heard
    assert cluster.said("steps.log") == []


ENROOT = """#!/bin/sh
[ "$1" = digest ] && { echo "$DIGEST"; exit 0; }
[ "$1 $2" = "import --output" ] || exit 2
echo "$4" > "$3"
"""


@pytest.mark.parametrize(("digest", "code"), [("sha256:" + "d" * 64, 0), ("sha256:" + "f" * 64, 4)])
def test_the_image_is_the_one_of_the_digest(tmp_path, digest, code):
    (tmp_path / "enroot").write_text(ENROOT)
    (tmp_path / "enroot").chmod(0o755)
    texts = deploy.render(spec_of("slurm", settings={"image_file": str(tmp_path / "images" / "triton.sqsh")}))
    environment = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin", "DIGEST": digest}

    done = subprocess.run(
        ["bash", "-c", texts["import-image.sh"]], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == code, done.stderr
    made = tmp_path / "images" / "triton.sqsh"
    assert made.is_file() == (code == 0)
    if made.is_file():
        assert made.read_text() == "docker://nvcr.io#nvidia/tritonserver:26.07-trtllm-python-py3\n"
        assert (tmp_path / "images" / "triton.sqsh.sha256").read_text().split() == [
            hashlib.sha256(made.read_bytes()).hexdigest(),
            "triton.sqsh",
        ]


@pytest.mark.parametrize(
    ("image", "uri"),
    [
        ("nvcr.io/nvidia/tritonserver:26.07-py3", "docker://nvcr.io#nvidia/tritonserver:26.07-py3"),
        ("nvcr.io/nvidia/tritonserver@sha256:ab", "docker://nvcr.io#nvidia/tritonserver@sha256:ab"),
        ("localhost:5000/trtk-cpu:1", "docker://localhost:5000#trtk-cpu:1"),
        ("trtk-cpu", "docker://trtk-cpu"),
    ],
)
def test_an_image_is_written_as_enroot_writes_it(image, uri):
    assert slurm.uri_of(image) == uri


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"tp": 4, "nodes": 2}, PlanInfeasible, "count on nodes of 8 GPUs; these have 2"),
        ({"settings": {"partition": "a b"}}, UsageError, "--set partition=a b is no name"),
        ({"settings": {"time_limit": "soon"}}, UsageError, "--set time_limit=soon is no time"),
        ({"volume": "pvc"}, PlanInfeasible, "takes no model volume of the kind pvc"),
        ({"autoscale": "keda"}, PlanInfeasible, "Slurm cannot scale by itself"),
    ],
)
def test_a_wrong_wish_gets_a_sentence(changes, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        deploy.render(spec_of("slurm", **changes))
