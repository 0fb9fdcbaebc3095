"""What a container gets, as it would be typed by hand; and what others are handed to keep a server themselves."""

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.engine.serving_image import Image
from tests.engine.test_first_start import make_bundle
from toolkit.cli.serve_gpus import best
from toolkit.errors import MissingError, UsageError
from toolkit.serve import allowances, backend, containment, emitting, targets
from toolkit.serve.backend import Identity
from toolkit.specs import Companion, ContainerOptions, EngineManifest, FileRecord, ServeSpec, to_json
from toolkit.specs.machine import LocalGpu

WHO = Identity(server_id="0123456789abcdef" * 2, secret="5ec2e7")
IMAGE = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
DIGEST = f"nvcr.io/nvidia/tritonserver@sha256:{'d' * 64}"
UUIDS = ("GPU-aaaa", "GPU-bbbb")


def built(folder, kind, *, tp=1, is_deferred=False, weights_bytes=0):
    repository = folder / "model_repository" / "ensemble"
    repository.mkdir(parents=True)
    (repository / "config.pbtxt").touch()
    (folder / "start.py").touch()
    manifest = EngineManifest(
        schema_version=1,
        kind=kind,
        name=folder.name,
        plan={
            "gpu": {"title": "NVIDIA RTX A4500", "name": "a4500", "sm": 86},
            "release": {"image": IMAGE},
            "limits": {"tp": tp, "pp": 1},
        },
        model={},
        files=(FileRecord(path="checkpoint/rank0.safetensors", size_bytes=weights_bytes, sha256=""),),
        durations_s={},
        tool_versions={},
        is_deferred=is_deferred,
        build_id="b17d",
    )
    (folder / "manifest.json").write_text(json.dumps(to_json(manifest)))
    return folder


def spec_of(folder, kind, **options):
    container = ContainerOptions(memory_bytes=64 << 30, **options.pop("container", {}))
    return ServeSpec(
        name="Llama 8B",
        repository=str(folder / "model_repository"),
        backend="docker",
        folder=str(folder),
        kind=kind,
        http_port=9000,
        grpc_port=9001,
        metrics_port=9002,
        startup_timeout_s=600,
        max_restarts=5,
        container=container,
        **options,
    )


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(containment, "user", lambda: "1000:1000")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")


#: How every container is started, whatever is in it.
HARDENED = [
    "--user", "1000:1000", "--workdir", "/tmp", "--read-only",
    "--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777,size=8g",
    "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--ipc", "private",
]  # fmt: skip


def test_nvidias_image_is_run_as_it_would_be_by_hand(tmp_path):
    folder = built(tmp_path / "llama", "trtllm", tp=2)
    spec = spec_of(folder, "trtllm", container={"image_id": "sha256:1234", "gpu_uuids": UUIDS})

    shown = backend.pick("docker").launch(spec, WHO).shown

    assert list(shown) == [
        "docker", "run", "--rm", "--name", "trtk-llama-8b-01234567",
        *HARDENED,
        "--shm-size", str((1 << 30) + (2 << 28)), "--pids-limit", "4096",
        "--memory", str(64 << 30), "--memory-swap", str(64 << 30),
        "--ulimit", "memlock=-1:-1", "--ulimit", "stack=67108864:67108864",
        "--gpus", '"device=GPU-aaaa,GPU-bbbb"',
        "--log-opt", "max-size=10m", "--log-opt", "max-file=3",
        "--network", "bridge",
        "--publish", "127.0.0.1:9000:8000", "--publish", "127.0.0.1:9001:8001", "--publish", "127.0.0.1:9002:8002",
        "--mount", f"type=bind,source={folder},target=/bundle,readonly",
        "--mount", f"type=bind,source={tmp_path}/cache/compiled/b17d,target=/engines",
        "--env", "HOME=/tmp", "--env", "PYTHONDONTWRITEBYTECODE=1", "--env", "PYTHONUNBUFFERED=1",
        "--env", "USER=trtk", "--env", "LOGNAME=trtk", "--env", "HF_HUB_OFFLINE=1", "--env", "TRANSFORMERS_OFFLINE=1",
        "--env", "TRTK_ENGINES=/engines", "--env", "OMPI_MCA_btl_vader_single_copy_mechanism=none",
        "sha256:1234",
        "python3", "/bundle/start.py", "--",
        "--id=trtk-0123456789abcdef0123456789abcdef", "--exit-timeout-secs=10",
        "--http-address=0.0.0.0", "--grpc-address=0.0.0.0", "--metrics-address=0.0.0.0",
        "--http-port=8000", "--grpc-port=8001", "--metrics-port=8002",
    ]  # fmt: skip
    assert WHO.secret not in " ".join(shown)


def test_behind_a_front_tritons_own_http_is_on_loopback_whatever_the_host(tmp_path):
    folder = built(tmp_path / "llama", "trtllm", tp=1)
    spec = dataclasses.replace(spec_of(folder, "trtllm", host="10.0.0.5"), triton_http_port=29000)
    assert [(one.address, one.port, one.container_port) for one in containment.container(spec, WHO).ports] == [
        ("127.0.0.1", 29000, 8000), ("10.0.0.5", 9001, 8001), ("10.0.0.5", 9002, 8002)
    ]  # fmt: skip
    on_host = dataclasses.replace(spec, container=dataclasses.replace(spec.container, network="host"))
    assert [word for word in containment.container(on_host, WHO).command if "http" in word] == [
        "--http-address=127.0.0.1",
        "--http-port=29000",
    ]


def test_two_ranks_are_two_servers_under_mpi_of_which_one_answers(tmp_path):
    """The whole line that the container ends up with, in a stand-in for NVIDIA's image."""
    made = make_bundle(tmp_path / "two", ranks=2)
    image = Image(tmp_path / "image")
    image.set_gpus(*["8.6, 20470, NVIDIA RTX A4500"] * 2)
    spec = spec_of(made, "trtllm", container={"gpu_uuids": UUIDS})

    code, out, said = image.start(made, *containment.container(spec, WHO).command[2:])

    assert code == 0, said
    line = json.loads(out)["line"]
    (secret,) = {word.partition(":closed=")[2] for word in line if ":closed=" in word}
    closed = f"model-repository,model-config,shared-memory,trace,logging:closed={secret}"
    common = [
        f"--model-repository={made}/model_repository",
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        "--exit-on-error=true",
        "--log-format=ISO8601",
        "--trace-config=level=OFF",
    ]
    assert [word for word in line if word != "--allow-run-as-root"] == [
        *("mpirun", "-n", "1", "tritonserver", *common),
        *("--id=rank0", "--backend-config=python,shm-region-prefix-name=prefix0_", "--model-control-mode=none"),
        *("--allow-sagemaker=false", "--allow-vertex-ai=false"),
        *(f"--http-restricted-api={closed}", f"--grpc-restricted-protocol={closed}"),
        *(f"--id=trtk-{WHO.server_id}", "--exit-timeout-secs=10"),
        *("--http-address=0.0.0.0", "--grpc-address=0.0.0.0", "--metrics-address=0.0.0.0"),
        *("--http-port=8000", "--grpc-port=8001", "--metrics-port=8002"),
        *(":", "-n", "1", "tritonserver", *common),
        *("--id=rank1", "--backend-config=python,shm-region-prefix-name=prefix1_"),
        *("--model-control-mode=explicit", "--load-model=tensorrt_llm"),
        *("--allow-http=false", "--allow-grpc=false", "--allow-metrics=false"),
    ]
    assert len(secret) == 32
    assert secret not in said


def repository_of(folder, engine, **about):
    """Write what `trtk repo` leaves for a built folder, elsewhere."""
    (folder / "ensemble").mkdir(parents=True)
    (folder / "ensemble" / "config.pbtxt").touch()
    record = {"schema_version": 1, "files": {}, "about": {"engine": str(engine), "mounts": [], **about}}
    (folder / ".trtk-repository.json").write_text(json.dumps(record))
    return folder


def test_a_repository_of_two_instances_is_served_with_the_engine_that_it_is_for(tmp_path):
    """In a stand-in for NVIDIA's image, where the folders are where the container would see them."""
    made = make_bundle(tmp_path / "engine")
    about = {"gpus": 2, "is_orchestrated": True, "draft": str(make_bundle(tmp_path / "draft"))}
    about["mounts"] = [[str(tmp_path), "/there"], [str(made), "/models/llama"], ["/home", "/data"]]
    repository = repository_of(tmp_path / "repository", made, **about)
    image = Image(tmp_path / "image")
    image.set_gpus("8.6, 20470, NVIDIA RTX A4500")
    target = targets.find(repository)
    spec = dataclasses.replace(spec_of(made, "trtllm"), repository=str(target.repository))

    container = containment.container(spec, WHO)
    same = [str(tmp_path / name) for name in ("repository", "engine", "draft")]

    assert (target.name, target.artefact.folder, target.artefact.world_size) == ("repository", made, 2)
    assert [(mount.source, mount.target, mount.is_read_only) for mount in container.mounts][2:] == [
        *((path, path, True) for path in same),
        *((path, f"/there/{Path(path).name}", True) for path in same),
        (str(made), "/models/llama", True),
    ]
    assert container.shm_bytes == (1 << 30) + (2 << 28)
    assert image.start(made, *container.command[2:])[0] == 4  # one GPU is too few
    image.set_gpus(*["8.6, 20470, NVIDIA RTX A4500"] * 2)
    code, out, said = image.start(made, *container.command[2:])
    assert code == 0, said
    document = json.loads(out)
    assert (document["line"][1], document["orchestrator"]) == (f"--model-repository={repository}", "1")


@pytest.mark.parametrize("mounts", [[1], ["/here"], 7, [["/here", "/there", "/more"]]])
def test_a_damaged_record_of_a_repository_is_named(tmp_path, mounts):
    folder = built(tmp_path / "demo", "openvino")
    repository = repository_of(tmp_path / "own", folder, mounts=mounts)

    with pytest.raises(UsageError, match="no pairs of folders"):
        containment.container(dataclasses.replace(spec_of(folder, "openvino"), repository=str(repository)), WHO)


def test_a_draft_that_nobody_built_is_not_shown_to_a_container(tmp_path):
    folder = built(tmp_path / "demo", "openvino")
    repository = repository_of(tmp_path / "own", folder, draft=str(tmp_path))

    with pytest.raises(UsageError, match="which `trtk build` did not make"):
        containment.container(dataclasses.replace(spec_of(folder, "openvino"), repository=str(repository)), WHO)


def test_a_cpu_engines_repository_is_served_where_it_is(tmp_path):
    folder = built(tmp_path / "demo", "openvino")
    repository = repository_of(tmp_path / "repository", folder)
    spec = dataclasses.replace(spec_of(folder, "openvino", container={"image": "c"}), repository=str(repository))
    made = containment.container(spec, WHO)

    assert made.command[:2] == ("serve", str(repository))
    assert [mount.target for mount in made.mounts] == ["/engine", str(repository), str(folder)]
    assert targets.engine_of(tmp_path) is None


def test_the_llm_api_reads_its_folder_and_writes_nothing(tmp_path):
    folder = built(tmp_path / "llama", "llmapi")
    spec = spec_of(folder, "llmapi", is_verified=False, container={"network": "host", "gpu_uuids": UUIDS[:1]})

    made = containment.container(spec, WHO)

    assert [(mount.source, mount.target, mount.is_read_only) for mount in made.mounts] == [
        (str(folder), "/bundle", True)
    ]
    assert (made.image, made.network, made.ports, made.gpu_uuids) == (IMAGE, "host", (), ("GPU-aaaa",))
    assert made.command[:4] == ("python3", "/bundle/start.py", "--no-verify", "--")
    assert made.command[-6:] == (
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        "--http-port=9000",
        "--grpc-port=9001",
        "--metrics-port=9002",
    )


def test_a_cpu_engine_runs_trtk_in_the_image_that_was_named(tmp_path):
    folder = built(tmp_path / "demo", "openvino")
    spec = spec_of(folder, "openvino", container={"image": "trtk-cpu"})

    made = containment.container(spec, WHO)

    assert (made.image, made.gpu_uuids) == ("trtk-cpu", ())
    assert " ".join(made.command) == (
        f"serve /engine --backend embedded --server-id {WHO.server_id} --host 0.0.0.0 --allow-remote "
        "--http-port 8000 --grpc-port 8001 --metrics-port 8002 --timeout 600 --exit-timeout 10 "
        "--restart no --probe-every 0 --print-log --no-verify"
    )


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("openvino", {}, "no image for it was named"),
        ("trtllm", {"folder": ""}, "says of no engine that it is for"),
        ("trtllm", {"host": "0.0.0.0"}, "--host 0.0.0.0 can be reached from other machines"),
    ],
)
def test_what_no_container_serves_is_refused_with_what_to_do(tmp_path, kind, changes, message):
    folder = built(tmp_path / "x", kind)

    with pytest.raises(UsageError, match=message) as refused:
        backend.pick("docker").check(dataclasses.replace(spec_of(folder, kind), **changes))

    assert refused.value.hint


def test_a_compose_file_holds_the_same_container(tmp_path, monkeypatch):
    folder = built(tmp_path / "llama", "llmapi")
    spec = spec_of(folder, "llmapi", container={"gpu_uuids": UUIDS[:1], "cpus": 8})
    monkeypatch.setattr("toolkit.containers.known_digest", lambda reference: DIGEST if reference == IMAGE else "")

    text = emitting.compose(spec)

    assert yaml.safe_load(text) == {
        "name": "llama-8b",
        "services": {
            "triton": {
                "image": DIGEST,
                "command": [
                    "python3",
                    "/bundle/start.py",
                    "--",
                    "--id=llama-8b",
                    "--exit-timeout-secs=10",
                    "--http-address=0.0.0.0",
                    "--grpc-address=0.0.0.0",
                    "--metrics-address=0.0.0.0",
                    "--http-port=8000",
                    "--grpc-port=8001",
                    "--metrics-port=8002",
                ],
                "user": "1000:1000",
                "working_dir": "/tmp",
                "environment": {
                    "HOME": "/tmp",
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PYTHONUNBUFFERED": "1",
                    "USER": "trtk",
                    "LOGNAME": "trtk",
                    "HF_HUB_OFFLINE": "1",
                    "TRANSFORMERS_OFFLINE": "1",
                    "TRTK_ENGINES": "/engines",
                    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
                },
                "ports": ["127.0.0.1:9000:8000", "127.0.0.1:9001:8001", "127.0.0.1:9002:8002"],
                "volumes": [{"type": "bind", "source": str(folder), "target": "/bundle", "read_only": True}],
                "tmpfs": ["/tmp:rw,exec,nosuid,nodev,mode=1777,size=8g"],
                "read_only": True,
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges:true"],
                "ipc": "private",
                "shm_size": (1 << 30) + (1 << 28),
                "mem_limit": 64 << 30,
                "memswap_limit": 64 << 30,
                "pids_limit": 4096,
                "cpus": 8,
                "ulimits": {"memlock": {"soft": -1, "hard": -1}, "stack": {"soft": 67108864, "hard": 67108864}},
                "deploy": {
                    "resources": {
                        "reservations": {
                            "devices": [{"driver": "nvidia", "device_ids": ["GPU-aaaa"], "capabilities": ["gpu"]}]
                        }
                    }
                },
                "restart": "on-failure:5",
                "stop_grace_period": "26s",
                "healthcheck": {
                    "test": [
                        "CMD",
                        "python3",
                        "-c",
                        "from urllib.request import urlopen; "
                        "urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)",
                    ],
                    "interval": "15s",
                    "timeout": "5s",
                    "retries": 3,
                    "start_period": "600s",
                },
                "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
            }
        },
    }
    assert emitting.NOT_PINNED not in text


def test_compose_reads_the_file(tmp_path):
    program = next((line for line in (["docker", "compose"], ["docker-compose"]) if _runs([*line, "version"])), None)
    if program is None:
        pytest.skip("neither `docker compose` nor docker-compose is installed")
    file = tmp_path / "compose.yaml"
    file.write_text(emitting.compose(spec_of(built(tmp_path / "llama", "llmapi"), "llmapi")))

    done = subprocess.run([*program, "-f", file, "config", "-q"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def _runs(line):
    return bool(shutil.which(line[0])) and subprocess.run(line, capture_output=True, check=False).returncode == 0


def test_a_compose_file_without_a_digest_says_so_and_companions_are_refused(tmp_path):
    spec = spec_of(built(tmp_path / "llama", "llmapi"), "llmapi")

    assert emitting.NOT_PINNED in emitting.compose(spec)
    with pytest.raises(UsageError, match="a process of trtk beside it"):
        emitting.compose(dataclasses.replace(spec, companions=(Companion(name="gateway", argv=("x",)),)))
    with pytest.raises(UsageError, match="A compose file runs containers"):
        emitting.compose(dataclasses.replace(spec, backend="embedded"))


def embedded(folder, **changes):
    return dataclasses.replace(spec_of(folder, "openvino"), backend="embedded", max_restarts=2, **changes)


@pytest.mark.parametrize("is_user", [False, True], ids=["system", "user"])
def test_systemd_reads_the_unit_and_finds_it_hardened(tmp_path, monkeypatch, is_user):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    monkeypatch.chdir(tmp_path)
    spec = embedded(built(tmp_path / "demo", "openvino"), container=ContainerOptions(memory_bytes=4 << 30, cpus=1.5))
    unit = tmp_path / emitting.file_name(spec, emitting.SYSTEMD)
    command = ["/bin/echo", "serve", "/a folder/50%", "--name", 'say "$HOME"']
    unit.write_text(emitting.systemd(spec, command, is_user=is_user))
    place = tmp_path / "run"
    place.mkdir(mode=0o700)

    mode = ["--user"] if is_user else []
    done = subprocess.run(
        ["systemd-analyze", *mode, "verify", unit],
        env={**os.environ, "XDG_RUNTIME_DIR": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )

    # It may name units of this machine that are broken.
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []
    lines = unit.read_text().splitlines()
    assert unit.name == "trtk-llama-8b.service"
    assert r'ExecStart=/bin/echo serve "/a folder/50%%" --name "say \"$$HOME\""' in lines
    assert {"Restart=on-failure", "StartLimitBurst=3", "MemoryMax=4294967296", "CPUQuota=150%"} < set(lines)
    assert {"NoNewPrivileges=yes", "KillMode=mixed", "TimeoutStopSec=22", f"WorkingDirectory={tmp_path}"} < set(lines)
    assert ("ProtectSystem=strict" in lines, "IPAddressDeny=any" in lines) == (not is_user, not is_user)
    if not is_user:
        rated = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", unit], capture_output=True, text=True, check=False
        )
        assert float(rated.stdout.split("Overall exposure level")[1].split()[2]) < 3


@pytest.mark.parametrize(
    ("kind", "is_deferred", "gigabytes", "seconds"),
    [
        ("openvino", False, 0, 180),
        ("llmapi", False, 16, 420 + 160),
        # Reading 5 GB at 100 MB/s, and TensorRT's 20 minutes and one more for each GB.
        ("trtllm", True, 5, 180 + 50 + 1200 + 300),
    ],
)
def test_a_start_may_take_what_its_size_takes(tmp_path, kind, is_deferred, gigabytes, seconds):
    folder = built(tmp_path / "x", kind, is_deferred=is_deferred, weights_bytes=gigabytes * 10**9)

    assert allowances.startup_timeout_s(targets.artefact(folder)) == seconds
    assert allowances.startup_timeout_s(None) == 180


def gpu(uuid, free_mib, *, title="NVIDIA RTX A4500", name="a4500", sm=86):
    return LocalGpu(uuid=uuid, title=title, name=name, sm=sm, memory_total_mib=20470, memory_free_mib=free_mib)


def test_cards_of_the_plans_kind_with_most_memory_free_are_taken(tmp_path):
    found = targets.artefact(built(tmp_path / "x", "trtllm", tp=2))
    others = [gpu("L4", 90000, title="NVIDIA L4", name="l4", sm=89)]
    cards = (*others, gpu("a", 1000), gpu("b", 20000), gpu("c", 15000))

    assert best(found, cards) == ("b", "c")
    with pytest.raises(MissingError, match=r"is for 2 of NVIDIA RTX A4500 \(sm_86\); this machine's GPUs: NVIDIA L4"):
        best(found, (others[0], gpu("a", 1000)))
    with pytest.raises(MissingError, match="this machine's GPUs: no NVIDIA driver is installed"):
        best(found, (), fault="no NVIDIA driver is installed")
