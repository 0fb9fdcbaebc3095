"""The docker builder against a real daemon: what it passes, what it says, and that it leaves nothing behind."""

import contextlib
import dataclasses
import json
import os
import pickle
import signal
import site
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.containers.images import base_image
from tests.engine.compilers import (
    CARD,
    MEMORY_BYTES,
    OTHER,
    compiler_image,
    folder_of,
    job_of,
    need_gpus_handed_out,
    plan_for,
    seen_in,
)
from toolkit import engine
from toolkit.errors import BuildError, MissingError, PlanInfeasible
from toolkit.specs import Choice
from toolkit.specs.machine import BuildHost

pytestmark = pytest.mark.docker
KEY = "sm86-trtllm1.2.1-trt10.14.1.48"
PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def image(docker_daemon):
    made = compiler_image(docker_daemon.client, plan_for("docker").release)
    need_gpus_handed_out(docker_daemon.client, made)
    return made


def compiled(folder, image, *, plan=None, progress=None, **changes):
    """Compile a folder in the image; return the versions that it tells."""
    said = progress if progress is not None else []
    return engine.compile_plan(
        plan or plan_for("docker"),
        folder,
        job=job_of(folder, image=image, **changes),
        progress=lambda *step: said.append(step),
    )


def containers_of(daemon):
    return daemon.client.containers.list(all=True, filters={"label": "trtk.job"}, ignore_removed=True)


def need_nothing_left(daemon, folder):
    """No container, nobody else's file, and of the engine nothing but the log."""
    assert containers_of(daemon) == []
    assert {path.stat().st_uid for path in folder.rglob("*")} == {os.geteuid()}
    assert [path.name for path in (folder / "engine").iterdir()] == [f"{KEY}.log"]


def test_the_compiler_gets_what_the_plan_says_and_nothing_more(docker_daemon, image, tmp_path):
    folder = folder_of(tmp_path / "build", {"do": "succeed"})
    plan, steps = plan_for("docker"), []

    versions = compiled(folder, image, plan=plan, progress=steps)

    log = folder / "engine" / f"{KEY}.log"
    seen = seen_in(log)
    flags = [word for flag in plan.build_flags for word in (f"--{flag.name}", *flag.value.split())]
    assert seen.pop("argv") == [
        "--checkpoint_dir", "/checkpoint", "--output_dir", "/output/engine",
        "--input_timing_cache", "/output/timing/model.cache", "--output_timing_cache", "/output/timing/model.cache",
        *flags,
    ]  # fmt: skip
    uid, gid = (os.geteuid(), os.getegid()) if os.geteuid() else (1000, 1000)
    stack = seen.pop("stack")
    assert seen == {
        "uid": uid,
        "gid": gid,
        "groups": [gid],
        "capabilities": "0000000000000000",
        "no_new_privileges": "1",
        "network": ["lo"],
        "gpus": CARD.uuid,
        "shm_bytes": (1 << 30) + (1 << 28),
        "home": "/tmp",
        "user": "trtk",
        "can_write": {"/": False, "/tmp": True, "/checkpoint": False, "/output/engine": True},
    }
    assert stack == 64 << 20 or "may not raise limits" in log.read_text()
    assert versions == {
        "image": docker_daemon.client.images.get(image).id,
        "tensorrt_llm": "1.2.1",
        "docker": docker_daemon.version,
        "compiled_on": "NVIDIA RTX A4500",
    }
    made = folder / "engine" / KEY
    assert {path.name: path.read_bytes() for path in made.iterdir()} == {
        "rank0.engine": b"an engine",
        "config.json": b'{"version": "1.2.1"}',
    }
    assert sorted(path.name for path in (folder / "engine").iterdir()) == [KEY, f"{KEY}.log"]
    assert {path.stat().st_uid for path in folder.rglob("*")} == {os.geteuid()}
    assert containers_of(docker_daemon) == []
    assert [step for step in steps if step[0].startswith("Compile")][-1] == ("Compile with trtllm-build", 1, 1)


def test_the_second_build_reads_the_timings_of_the_first(image, tmp_path):
    for name, known in (("first", "''"), ("second", "'timed;'")):
        folder = folder_of(tmp_path / name, {"do": "succeed"})
        compiled(folder, image)
        assert f"timing cache: {known}" in (folder / "engine" / f"{KEY}.log").read_text()
    assert (tmp_path / "timing" / f"a4500-{KEY}" / "model.cache").read_text() == "timed;timed;"


@pytest.mark.parametrize(
    ("behaviour", "error", "message", "hint"),
    [
        (
            {"do": "fail", "say": ["trtllm-build: error: unrecognized arguments: --new_flag enable"], "code": 2},
            BuildError,
            "trtllm-build failed: this trtllm-build does not know --new_flag enable: it is of another release than "
            "26.07 (TensorRT-LLM 1.2.1).",
            "--release names",
        ),
        (
            {
                "do": "fail",
                "say": ["RuntimeError: CUDA error: no kernel image is available for execution on the device"],
            },
            PlanInfeasible,
            "trtllm-build failed: 26.07 (TensorRT-LLM 1.2.1) has no kernels for NVIDIA RTX A4500.",
            "Take another --release",
        ),
        (
            {"do": "fail", "say": ["[TRT] [E] 1: [defaultAllocator.cpp] Error Code 1: Cuda Runtime (out of memory)"]},
            MissingError,
            "trtllm-build failed: the GPU's memory is too small for compiling, or something else uses it.",
            "Stop what else runs",
        ),
        (
            {"do": "fail", "say": ["something that nobody knows"], "code": 7},
            BuildError,
            "trtllm-build ended with exit code 7.",
            "Please report it",
        ),
        (
            {"do": "memory"},
            MissingError,
            "trtllm-build was killed: it needed more than the 0.1 GiB of memory that it may use.",
            "Compile on a machine with more memory",
        ),
        (
            {"do": "nothing"},
            BuildError,
            "trtllm-build ended without an error, and config.json is not there or empty.",
            "Please report it",
        ),
        (
            {"do": "succeed", "version": "1.1.0"},
            BuildError,
            "TensorRT-LLM 1.1.0 compiled the engine; the plan is for 1.2.1 (release 26.07), which could not run it.",
            "Build with the --release",
        ),
    ],
    ids=["unknown flag", "wrong SM", "GPU memory", "unknown", "memory", "nothing made", "wrong version"],
)
def test_a_failure_is_explained_and_leaves_its_log_alone(
    docker_daemon, image, tmp_path, behaviour, error, message, hint
):
    folder = folder_of(tmp_path / "build", behaviour)

    with pytest.raises(error) as caught:
        compiled(folder, image)

    log = folder / "engine" / f"{KEY}.log"
    assert str(caught.value).startswith(message)
    assert caught.value.hint.startswith(hint)
    for line in behaviour.get("say", ()):
        assert f"\n  {line}" in str(caught.value)
        assert line in log.read_text()
    need_nothing_left(docker_daemon, folder)


def two_ranks(folder, image):
    """Return a plan for two ranks, and its job on a machine with two of the cards."""
    plan = plan_for("docker")
    twin = dataclasses.replace(CARD, uuid="GPU-7a2b-stand-in")
    job = job_of(folder, image=image, host=BuildHost(gpus=(CARD, OTHER, twin)))
    return dataclasses.replace(plan, limits=dataclasses.replace(plan.limits, tp=2)), job


def test_ranks_are_compiled_on_as_many_cards_and_each_must_be_there(docker_daemon, image, tmp_path):
    folder, steps = folder_of(tmp_path / "build", {"do": "succeed", "ranks": 2}), []
    plan, job = two_ranks(folder, image)

    engine.compile_plan(plan, folder, job=job, progress=lambda *step: steps.append(step))

    seen = seen_in(folder / "engine" / f"{KEY}.log")
    assert (seen["gpus"], seen["shm_bytes"]) == (f"{CARD.uuid},GPU-7a2b-stand-in", (1 << 30) + 2 * (1 << 28))
    names = ["config.json", "rank0.engine", "rank1.engine"]
    assert sorted(path.name for path in (folder / "engine" / KEY).iterdir()) == names
    compiling = [done for step, done, total in steps if step == "Compile with trtllm-build" and total == 2]
    assert compiling == sorted(compiling)
    assert {0, 0.2, 0.9, 1, 1.2, 1.9, 2} <= set(compiling)

    folder = folder_of(tmp_path / "short", {"do": "succeed", "ranks": 1})
    plan, job = two_ranks(folder, image)
    with pytest.raises(BuildError, match=r"without an error, and rank1\.engine is not there"):
        engine.compile_plan(plan, folder, job=job)
    need_nothing_left(docker_daemon, folder)


def test_an_image_without_a_compiler_is_named(docker_daemon, image, tmp_path):
    bare, folder = base_image(docker_daemon.client), folder_of(tmp_path / "build", {"do": "succeed"})
    assert image
    with pytest.raises(MissingError, match=r"The image sha256:\w+ has no trtllm-build\.") as caught:
        compiled(folder, bare)
    assert caught.value.hint == "`trtk releases` lists images that have it."
    need_nothing_left(docker_daemon, folder)


def test_a_flag_of_another_release_is_refused_by_this_ones_compiler(docker_daemon, image, tmp_path):
    folder, plan = folder_of(tmp_path / "build", {"do": "succeed"}), plan_for("docker")
    other = dataclasses.replace(
        plan, build_flags=(*plan.build_flags, Choice(name="auto_parallel", value="1", reason=""))
    )

    with pytest.raises(BuildError, match="does not know --auto_parallel 1: it is of another release than 26.07"):
        compiled(folder, image, plan=other)
    need_nothing_left(docker_daemon, folder)


def test_a_full_disk_is_named(docker_daemon, image, small_disk):
    disk = small_disk("8m")
    folder = folder_of(disk / "build", {"do": "disk"})
    with pytest.raises(MissingError, match=r"trtllm-build failed: the disk is full\."):
        compiled(folder, image)
    need_nothing_left(docker_daemon, folder)


#: Runs a build like `trtk build` does, in a process of its own.
BUILDS = """
import pickle, sys
from pathlib import Path
from toolkit import engine
plan, job = pickle.loads(Path(sys.argv[1]).read_bytes())
engine.compile_plan(plan, job.folder, job=job)
"""


def building(folder, image):
    """Start a build in a process of its own."""
    task = folder.with_suffix(".pickle")
    task.write_bytes(pickle.dumps((plan_for("docker"), job_of(folder, image=image))))
    return subprocess.Popen([sys.executable, "-c", BUILDS, str(task)], cwd=PROJECT, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_build_that_is_stopped_takes_its_container_along(docker_daemon, image, tmp_path, number):
    folder = folder_of(tmp_path / "build", {"do": "hang"})
    owner = building(folder, image)
    log = folder / "engine" / f"{KEY}.log"
    until(lambda: log.is_file() and "HANGS" in log.read_text())
    (running,) = containers_of(docker_daemon)
    assert running.status == "running"
    host = docker_daemon.client.api.inspect_container(running.id)["HostConfig"]
    assert {name: host[name] for name in ("Memory", "MemorySwap", "PidsLimit", "ReadonlyRootfs", "NetworkMode")} == {
        "Memory": MEMORY_BYTES,
        "MemorySwap": MEMORY_BYTES,
        "PidsLimit": 4096,
        "ReadonlyRootfs": True,
        "NetworkMode": "none",
    }
    assert host["DeviceRequests"][0]["DeviceIDs"] == [CARD.uuid]
    assert running.labels["trtk.pid"] == str(owner.pid)

    owner.send_signal(number)
    owner.wait()

    until(lambda: containers_of(docker_daemon) == [] and len(list((folder / "engine").iterdir())) == 1)
    need_nothing_left(docker_daemon, folder)


@pytest.fixture
def other_user(docker_daemon):
    """What runs Python as a user without rights, in a folder of its own; only root can do that."""
    if os.geteuid() != 0:
        pytest.skip("only root can run a build as another user")
    packages = os.pathsep.join([str(PROJECT), *site.getsitepackages()])
    owner = {
        "user": 1234,
        "group": 1234,
        "extra_groups": [Path(docker_daemon.host.removeprefix("unix://")).stat().st_gid],
    }
    environment = {"DOCKER_HOST": docker_daemon.host, "PYTHONPATH": packages, "HOME": "/tmp"}
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        with contextlib.suppress(OSError):
            probe = [python, "-c", "import docker, toolkit.engine"]
            if subprocess.run(probe, env=environment, check=False, capture_output=True, **owner).returncode == 0:
                break
    else:
        pytest.skip("no Python here can be run by another user")
    with tempfile.TemporaryDirectory() as folder:
        yield (
            Path(folder),
            lambda task: subprocess.run(
                [python, "-c", BUILDS, str(task)], env=environment, check=False, capture_output=True, text=True, **owner
            ),
        )


@pytest.mark.parametrize("behaviour", [{"do": "succeed"}, {"do": "nothing"}], ids=["succeeds", "fails"])
def test_a_user_without_rights_owns_all_that_a_build_leaves(docker_daemon, image, other_user, behaviour):
    place, run = other_user
    folder = folder_of(place / "build", behaviour)
    task = place / "task.pickle"
    task.write_bytes(pickle.dumps((plan_for("docker"), job_of(folder, image=image))))
    for path in (place, *place.rglob("*")):
        os.chown(path, 1234, 1234)

    done = run(task)

    assert done.returncode == (0 if behaviour["do"] == "succeed" else 1), done.stderr
    seen = seen_in(folder / "engine" / f"{KEY}.log")
    assert (seen["uid"], seen["gid"]) == (1234, 1234)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in place.rglob("*")} == {(1234, 1234)}
    names = [KEY, f"{KEY}.log"] if behaviour["do"] == "succeed" else [f"{KEY}.log"]
    assert sorted(path.name for path in (folder / "engine").iterdir()) == names
    assert containers_of(docker_daemon) == []


def test_the_next_build_removes_what_a_dead_one_left(docker_daemon, image, tmp_path):
    """Killed together with its watcher, as when a whole machine or session goes down."""
    folder = folder_of(tmp_path / "build", {"do": "hang"})
    owner = building(folder, image)
    log = folder / "engine" / f"{KEY}.log"
    until(lambda: log.is_file() and "HANGS" in log.read_text())
    children = Path(f"/proc/{owner.pid}/task/{owner.pid}/children").read_text().split()
    for pid in (*map(int, children), owner.pid):
        os.kill(pid, signal.SIGKILL)
    owner.wait()
    (orphan,) = containers_of(docker_daemon)

    compiled(folder_of(tmp_path / "next", {"do": "succeed"}), image)

    assert orphan.id not in {one.id for one in docker_daemon.client.containers.list(all=True)}
    assert containers_of(docker_daemon) == []


def test_two_builds_at_once_do_not_meet(docker_daemon, image, tmp_path):
    folders = [folder_of(tmp_path / name, {"do": "succeed"}) for name in ("one", "two")]
    both = [building(folder, image) for folder in folders]
    assert [one.wait() for one in both] == [0, 0]

    for folder in folders:
        assert json.loads((folder / "engine" / KEY / "config.json").read_text()) == {"version": "1.2.1"}
    assert containers_of(docker_daemon) == []


def until(holds, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
