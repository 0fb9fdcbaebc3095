"""The local builder with a real process: what it passes, and that nothing of it outlives trtk."""

import dataclasses
import os
import pickle
import signal
import subprocess
import sys

import pytest

from tests.engine.compilers import CARD, OTHER, folder_of, job_of, local_compiler, plan_for, seen_in
from tests.engine.test_docker_builder import BUILDS, KEY, PROJECT, until
from toolkit import engine, processes
from toolkit.engine import local_trtllm
from toolkit.engine.builder import choose
from toolkit.errors import BuildError, MissingError
from toolkit.specs.machine import BuildHost


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A trtllm-build of the default release on PATH; yields its path."""
    folder = tmp_path / "compiler"
    for name, value in local_compiler(folder, plan_for("local").release).items():
        monkeypatch.setenv(name, value)
    return str(folder / "trtllm-build")


def job_with(compiler, folder):
    host = BuildHost(gpus=(OTHER, CARD), trtllm_build=compiler, trtllm_version="1.2.1")
    return dataclasses.replace(job_of(folder), host=host)


def test_the_program_on_path_tells_its_version_without_being_run(compiler):
    assert local_trtllm.find() == (compiler, "1.2.1")


def test_no_program_on_path_is_no_version(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local_trtllm.find() == ("", "")


def test_a_program_that_does_not_tell_has_no_version(tmp_path, monkeypatch):
    (tmp_path / "trtllm-build").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "trtllm-build").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert local_trtllm.find() == (str(tmp_path / "trtllm-build"), "")


def test_it_compiles_on_the_plans_card(compiler, tmp_path):
    folder = folder_of(tmp_path / "build", {"do": "succeed"})

    versions = engine.compile_plan(plan_for("local"), folder, job=job_with(compiler, folder))

    seen = seen_in(folder / "engine" / f"{KEY}.log")
    assert seen["gpus"] == CARD.uuid
    assert seen["argv"][:2] == ["--checkpoint_dir", str(folder / "checkpoint")]
    assert versions == {"tensorrt_llm": "1.2.1", "compiled_on": "NVIDIA RTX A4500"}
    assert sorted(path.name for path in (folder / "engine" / KEY).iterdir()) == ["config.json", "rank0.engine"]
    assert sorted(path.name for path in (folder / "engine").iterdir()) == [KEY, f"{KEY}.log"]


def test_a_failure_leaves_its_log_alone(compiler, tmp_path):
    folder = folder_of(tmp_path / "build", {"do": "fail", "say": ["Nobody knows this."], "code": 3})

    with pytest.raises(BuildError, match=r"trtllm-build ended with exit code 3\.\nFrom its log") as caught:
        engine.compile_plan(plan_for("local"), folder, job=job_with(compiler, folder))

    assert str(caught.value).endswith("\n  Nobody knows this.")
    assert [path.name for path in (folder / "engine").iterdir()] == [f"{KEY}.log"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_build_that_is_stopped_takes_its_processes_along(compiler, tmp_path, number):
    folder = folder_of(tmp_path / "build", {"do": "hang"})
    task = tmp_path / "task.pickle"
    task.write_bytes(pickle.dumps((plan_for("local"), job_with(compiler, folder))))
    owner = subprocess.Popen([sys.executable, "-c", BUILDS, str(task)], cwd=PROJECT, stderr=subprocess.DEVNULL)
    log = folder / "engine" / f"{KEY}.log"
    until(lambda: log.is_file() and "HANGS" in log.read_text())
    (scratch,) = (folder / "engine").glob(".*.partial")
    job = scratch.name.removeprefix(".").removesuffix(".partial")
    assert len(processes.marked("TRTK_JOB", job)) == 2  # it, and what it started in a session of its own

    owner.send_signal(number)
    owner.wait()

    until(lambda: not processes.marked("TRTK_JOB", job) and not scratch.exists())
    assert [path.name for path in (folder / "engine").iterdir()] == [f"{KEY}.log"]


@pytest.mark.parametrize(
    ("host", "chosen", "reason"),
    [
        (
            BuildHost(gpus=(CARD,)),
            "docker",
            "the release's own image compiles what it will serve",
        ),
        (
            BuildHost(gpus=(CARD,), docker_fault="no daemon", trtllm_build="/x/trtllm-build", trtllm_version="1.2.1"),
            "local",
            "not docker: no daemon; trtllm-build is on PATH, of the release that serves",
        ),
        (
            BuildHost(gpus=(CARD,), docker_fault="no daemon", trtllm_build="/x/trtllm-build", trtllm_version="1.1.0"),
            "defer",
            "not docker: no daemon; not local: /x/trtllm-build is TensorRT-LLM 1.1.0, and release 26.07 needs 1.2.1; "
            "the engine is compiled on the target, at first start",
        ),
        (
            BuildHost(gpus=(OTHER,)),
            "defer",
            "not docker: an engine for sm_86 is compiled on such a card, and this machine has NVIDIA L4 (sm_89); "
            "not local: no trtllm-build is on PATH; the engine is compiled on the target, at first start",
        ),
        (
            BuildHost(gpu_fault="no NVIDIA driver is installed"),
            "defer",
            "not docker: no NVIDIA driver is installed; not local: no trtllm-build is on PATH; the engine is compiled "
            "on the target, at first start",
        ),
    ],
    ids=["docker", "local", "wrong version", "wrong card", "no card"],
)
def test_auto_takes_the_first_builder_that_can_and_says_why(host, chosen, reason):
    choice = choose(plan_for("defer"), host, asked="auto")
    assert (choice.name, choice.value, choice.reason) == ("builder", chosen, reason)


def test_a_builder_that_was_asked_for_and_cannot_is_refused_with_the_reason():
    with pytest.raises(MissingError) as caught:
        choose(plan_for("defer"), BuildHost(gpus=(OTHER,)), asked="docker")
    assert str(caught.value) == (
        "--builder docker cannot compile for NVIDIA RTX A4500 here: an engine for sm_86 is compiled on such a card, "
        "and this machine has NVIDIA L4 (sm_89)."
    )
    assert caught.value.hint.startswith("--builder defer leaves a bundle")
