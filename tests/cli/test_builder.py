"""`trtk build --builder`: the whole command, with a driver, a daemon and a compiler that answer."""

import json
import os
import signal
import subprocess

import pytest

from tests.conftest import save_llama
from tests.e2e.conftest import TRTK, run_trtk
from tests.engine.compilers import compiler_image, local_compiler
from tests.engine.test_docker_builder import KEY, containers_of, until
from tests.machine.nvml_stand_in import driver, nvml_folder  # noqa: F401 - a fixture
from toolkit import releases

A4500 = "NVIDIA RTX A4500|8.6|20470|19000"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny Llama whose head size TensorRT-LLM's attention has."""
    folder = tmp_path_factory.mktemp("tiny") / "hf"
    save_llama(folder, hidden_size=256, num_attention_heads=4, num_key_value_heads=2)
    return folder


def build(model, folder, *options, env):
    options = ("--gpu", "a4500", "--quant", "int4_rtn", "-o", folder, "--json", *options)
    return run_trtk("build", model, *options, env={**env, "TRTK_CACHE": str(folder.parent / "cache")})


def need_engine(folder, document, **versions):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (document["kind"], document["is_deferred"]) == ("trtllm", False)
    assert manifest["tool_versions"] == {**manifest["tool_versions"], **versions}
    assert sorted(record["path"] for record in manifest["files"] if record["path"].startswith("engine/")) == [
        f"engine/{KEY}.log",
        f"engine/{KEY}/config.json",
        f"engine/{KEY}/rank0.engine",
    ]


@pytest.mark.docker
def test_a_card_and_a_daemon_give_an_engine(docker_daemon, model, tmp_path, nvml_folder):  # noqa: F811
    image = compiler_image(docker_daemon.client, releases.default())
    env, options = driver(nvml_folder, A4500), ("--builder", "docker", "--image", image, "--builder-memory", "1g")

    code, out, said = build(model, tmp_path / "engine", *options, env=env)

    assert code == 0, said
    found = docker_daemon.client.images.get(image).id
    need_engine(tmp_path / "engine", json.loads(out), image=found, compiled_on="NVIDIA RTX A4500")


@pytest.mark.docker
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["Ctrl-C", "kill -9"])
def test_a_command_that_is_stopped_leaves_no_container_and_no_engine(
    docker_daemon,
    model,
    tmp_path,
    nvml_folder,  # noqa: F811
    number,
    code,
):
    image = compiler_image(docker_daemon.client, releases.default(), does="hang")
    line = ["build", model, "--gpu", "a4500", "--quant", "int4_rtn", "--builder", "docker", "--image", image]
    line += ["-o", tmp_path / "engine"]
    building = subprocess.Popen(
        [*TRTK, *map(str, line)],
        env={**driver(nvml_folder, A4500), "TRTK_CACHE": str(tmp_path / "cache")},
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "engine.partial" / "engine" / f"{KEY}.log"
    until(lambda: log.is_file() and "HANGS" in log.read_text())

    building.send_signal(number)
    said = building.communicate()[1]

    assert building.returncode == code
    assert said.endswith("Interrupted.\n") == (number == signal.SIGINT)
    until(lambda: not containers_of(docker_daemon) and [path.name for path in log.parent.iterdir()] == [log.name])
    assert not (tmp_path / "engine").exists()


def test_a_compiler_on_path_gives_an_engine(model, tmp_path, nvml_folder):  # noqa: F811
    env = {**driver(nvml_folder, A4500), **local_compiler(tmp_path / "compiler", releases.default())}

    code, out, said = build(model, tmp_path / "engine", "--builder", "local", env=env)

    assert code == 0, said
    need_engine(tmp_path / "engine", json.loads(out), tensorrt_llm="1.2.1")


@pytest.mark.docker
def test_auto_takes_a_daemon_that_says_it_hands_out_gpus(docker_daemon, model, tmp_path, nvml_folder):  # noqa: F811
    has_nvidia = "nvidia" in docker_daemon.client.info()["Runtimes"]

    code, out, said = build(model, tmp_path / "engine", "--dry-run", env=driver(nvml_folder, A4500))

    assert code == 0, said
    plan = json.loads(out)["plan"]
    (reason,) = [choice["reason"] for choice in plan["choices"] if choice["name"] == "builder"]
    refused = (
        f"not docker: Docker {docker_daemon.version} cannot give GPUs to containers; `trtk doctor` says what to do"
    )
    assert plan["builder"] == ("docker" if has_nvidia else "defer")
    assert reason.startswith("the release's own image compiles what it will serve" if has_nvidia else refused)


def test_a_dry_run_says_which_builder_and_why(model, tmp_path, nvml_folder):  # noqa: F811
    env = {**driver(nvml_folder, A4500), "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}

    code, out, said = build(model, tmp_path / "engine", "--dry-run", env=env)

    assert code == 0, said
    plan = json.loads(out)["plan"]
    assert plan["builder"] == "defer"
    assert [choice["reason"] for choice in plan["choices"] if choice["name"] == "builder"] == [
        f"not docker: No Docker daemon answers at unix://{tmp_path}/none.sock: No such file or directory; not local: "
        "no trtllm-build is on PATH; the engine is compiled on the target, at first start"
    ]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--builder", "docker"), 4, "--builder docker cannot compile for NVIDIA RTX A4500 here: "),
        (("--builder", "remote"), 2, "'remote' is not one of 'auto', 'docker', 'local', 'defer'"),
        (("--builder-memory", "much"), 2, "--builder-memory 'much' is no amount."),
        (("--flow", "llmapi", "--builder", "docker"), 2, "the llmapi flow needs no builder."),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(model, tmp_path, options, code, said):
    found, out, err = build(model, tmp_path / "engine", *options, env=dict(os.environ))
    assert (found, out) == (code, "")
    assert said in err
