"""What the driver says becomes nouns; the driver is a library with NVML's C functions, in a process of its own."""

import json
import subprocess
import sys

import pytest

from tests.machine.nvml_stand_in import driver, nvml_folder  # noqa: F401 - a fixture
from toolkit.machine.nvml import catalogue_name

PROGRAM = """
import json
from toolkit.machine import nvml
from toolkit.specs import to_json
print(json.dumps(to_json(nvml.look())))
"""
NONE = {"gpus": [], "driver": "", "cuda": "", "fault": "", "hint": ""}


def looked(environment):
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def test_driver_and_cards_are_read_with_their_catalogue_names(nvml_folder):  # noqa: F811
    found = looked(driver(nvml_folder, "NVIDIA RTX A4500|8.6|20470|19000", "NVIDIA B300 SXM6 AC|10.3|294912|1"))

    a4500 = {
        "uuid": "GPU-0",
        "title": "NVIDIA RTX A4500",
        "name": "a4500",
        "sm": 86,
        "memory_total_mib": 20470,
        "memory_free_mib": 19000,
    }
    assert (found["driver"], found["cuda"], found["fault"]) == ("590.44.01", "13.1", "")
    assert found["gpus"][0] == a4500
    assert (found["gpus"][1]["name"], found["gpus"][1]["sm"]) == ("b300", 103)


def test_a_machine_without_a_driver_is_an_answer(tmp_path):
    assert looked(driver(tmp_path)) == {
        **NONE,
        "fault": "no NVIDIA driver is installed",
        "hint": "Install the driver on a machine with an NVIDIA GPU; without one use --gpu cpu.",
    }


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("18", "the driver's library and kernel module are of different versions"),
        ("9", "the NVIDIA driver is not loaded"),
        ("4", "there is no permission to ask the driver"),
        ("999", "the driver's library says 'Unknown Error'"),
    ],
)
def test_a_driver_that_does_not_answer_says_why(nvml_folder, code, fault):  # noqa: F811
    found = looked(driver(nvml_folder, fault=code))

    assert (found["gpus"], found["fault"]) == ([], fault)
    assert found["hint"]


@pytest.mark.parametrize(
    ("title", "sm", "memory_mib", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", 80, 81920, "a100-80gb-sxm"),
        ("NVIDIA A100-SXM4-40GB", 80, 40960, "a100-40gb-sxm"),
        ("NVIDIA H100 80GB HBM3", 90, 81559, "h100-sxm"),
        ("NVIDIA GeForce RTX 4090", 89, 24564, "rtx-4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 89, 16376, ""),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", 89, 8188, ""),
        ("NVIDIA T1000", 75, 4096, ""),
    ],
)
def test_the_driver_s_names_are_found_in_the_catalogue(title, sm, memory_mib, name):
    assert catalogue_name(title, sm=sm, memory_mib=memory_mib) == name
