"""Each line of `trtk doctor`: what is missing for a card and a release, and what to do about it."""

import dataclasses

import pytest

from toolkit import gpus, releases
from toolkit.machine import FAIL, OK, WARN, Facts, Nvml, drivers, judge
from toolkit.machine.facts import DockerFacts, Port
from toolkit.specs.machine import LocalGpu

A4500 = LocalGpu(
    uuid="GPU-0", title="NVIDIA RTX A4500", name="a4500", sm=86, memory_total_mib=20470, memory_free_mib=20000
)
#: A machine that can do everything for an A4500 with release 26.07.
READY = Facts(
    nvml=Nvml(gpus=(A4500,), driver="590.48.01", cuda="13.1"),
    docker=DockerFacts(version="28.0", has_nvidia=True, root="/var/lib/docker"),
    nvidia_ctk="1.19.1",
    free_bytes={".": 10**12, "/var/lib/docker": 10**12},
    shm_bytes=1 << 30,
    memory_bytes=64 * 10**9,
    available_bytes=60 * 10**9,
    ports=(Port(number=8000, is_free=True),),
    missing_packages={"convert": (), "cpu": (), "gpu": ()},
    has_token=True,
    hub="https://huggingface.co",
)


def lines(facts, *, gpu="a4500", release="26.07"):
    found = judge(facts, gpu=gpus.get(gpu), release=releases.get(release))
    assert len({check.name for check in found}) == len(found)
    assert all(check.hint for check in found if check.status != OK)
    return {check.name: check for check in found}


def changed(**fields):
    return dataclasses.replace(READY, **fields)


def test_a_machine_that_has_everything_is_all_ok():
    assert {check.status for check in lines(READY).values()} == {OK}


@pytest.mark.parametrize(
    ("driver", "release", "status"),
    [
        ("590.44.01", "26.07", OK),
        ("590.43.99", "26.07", WARN),
        ("580.65.06", "26.07", WARN),
        ("575.57.08", "26.07", FAIL),
        ("575.57.08", "25.08", OK),  # CUDA 12.9
        ("525.60.13", "25.08", WARN),
        ("515.43.04", "25.08", FAIL),
        ("610.43.02", "25.08", OK),  # newer drivers run older toolkits
    ],
)
def test_the_driver_is_held_against_the_cuda_of_the_release(driver, release, status):
    nvml = dataclasses.replace(READY.nvml, driver=driver)

    assert lines(changed(nvml=nvml), release=release)["NVIDIA driver"].status == status


@pytest.mark.parametrize("release", [release.name for release in releases.catalogue()])
def test_the_driver_of_every_release_is_known(release):
    needed = drivers.needed_for(releases.get(release).cuda)

    assert drivers.is_at_least(needed.released_with, needed.oldest)


@pytest.mark.parametrize(
    ("fields", "line", "found"),
    [
        (
            {"nvml": Nvml(fault="no NVIDIA driver is installed", hint="Install it.")},
            "NVIDIA driver",
            "no NVIDIA driver is installed",
        ),
        (
            {"nvml": Nvml(gpus=(dataclasses.replace(A4500, sm=89, title="NVIDIA L4", name="l4"),), driver="590.48.01")},
            "asked GPU",
            "NVIDIA RTX A4500 (sm_86) is not here: NVIDIA L4 (sm_89)",
        ),
        (
            {"docker": DockerFacts(fault="No Docker daemon answers", hint="Start it.")},
            "Docker",
            "No Docker daemon answers",
        ),
        (
            {"docker": DockerFacts(version="28.0")},
            "NVIDIA container toolkit",
            "the daemon cannot give GPUs to containers",
        ),
        (
            {"missing_packages": {"convert": ("torch",), "gpu": ()}},
            "packages of trtk[convert]",
            "not installed: torch",
        ),
    ],
)
def test_what_the_asked_card_cannot_do_without_fails(fields, line, found):
    failed = {name: check for name, check in lines(changed(**fields)).items() if check.status == FAIL}

    assert {name: check.found for name, check in failed.items()} == {line: found}


def test_for_the_cpu_no_driver_and_no_docker_are_no_fault():
    bare = changed(nvml=Nvml(fault="no NVIDIA driver is installed"), docker=DockerFacts(fault="none", hint="start"))

    assert {check.status for check in lines(bare, gpu="cpu").values()} == {OK}
    assert lines(changed(missing_packages={"cpu": ("openvino",)}), gpu="cpu")["packages of trtk[cpu]"].status == FAIL


@pytest.mark.parametrize(
    ("fields", "gpu", "line", "status"),
    [
        ({"nvidia_ctk": "1.19.0"}, "a4500", "NVIDIA container toolkit", WARN),
        ({"nvidia_ctk": "1.19.1"}, "a4500", "NVIDIA container toolkit", OK),
        ({"free_bytes": {".": 4 * 10**9}}, "a4500", "disk .", WARN),
        ({"free_bytes": {"/var/lib/docker": 20 * 10**9}}, "a4500", "disk /var/lib/docker", WARN),
        ({"free_bytes": {"/var/lib/docker": 20 * 10**9}}, "cpu", "disk /var/lib/docker", OK),
        ({"shm_bytes": 64 << 20}, "cpu", "/dev/shm", WARN),
        ({"shm_bytes": 1 << 20}, "cpu", "/dev/shm", FAIL),
        ({"shm_bytes": 64 << 20}, "a4500", "/dev/shm", OK),  # the container has its own
        ({"available_bytes": 10**9}, "a4500", "memory", WARN),
        ({"ports": (Port(number=8000, is_free=False, holder="pid 7, nginx"),)}, "a4500", "port 8000", WARN),
    ],
)
def test_what_is_tight_is_a_warning(fields, gpu, line, status):
    assert lines(changed(**fields), gpu=gpu)[line].status == status


def test_a_card_that_others_use_and_one_that_nobody_knows_are_warnings():
    busy = dataclasses.replace(A4500, memory_free_mib=1000)
    stranger = dataclasses.replace(A4500, uuid="GPU-1", title="NVIDIA Something", name="")
    found = lines(changed(nvml=dataclasses.replace(READY.nvml, gpus=(busy, stranger))))

    assert (found["GPU 0"].status, found["GPU 1"].status) == (WARN, WARN)
    assert found["GPU 0"].found == "NVIDIA RTX A4500 (sm_86, a4500): 1000 of 20470 MiB free, GPU-0"


def test_a_missing_token_is_said_and_no_fault():
    check = lines(changed(has_token=False))["model hub"]

    assert (check.status, check.found) == (OK, "https://huggingface.co; no token")
    assert check.hint == "Gated models need one: https://huggingface.co/settings/tokens, then HF_TOKEN."
