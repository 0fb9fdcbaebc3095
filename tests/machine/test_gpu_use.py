"""What GPUs do is read from the driver; the driver is a library with NVML's C functions, in a process of its own."""

import json
import subprocess
import sys

import pytest

from tests.machine.nvml_stand_in import driver, nvml_folder  # noqa: F401 - a fixture

PROGRAM = """
import json
from toolkit.machine import gpu_use
from toolkit.specs import to_json
reader = gpu_use.open_reader()
print(json.dumps([to_json(one) for one in reader.read()] if reader else None))
"""
A4500 = "NVIDIA RTX A4500|8.6|20470|10235"


def read(environment):
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def test_each_gpu_says_what_it_does(nvml_folder):  # noqa: F811
    environment = driver(nvml_folder, A4500, A4500) | {"NVML_POWER_MW": "150500", "NVML_COUNTS_ENERGY": "1"}
    first, second = read(environment)
    assert first.pop("energy_j") == pytest.approx(second["energy_j"], rel=1e-3)
    assert first == {
        "uuid": "GPU-0",
        "title": "NVIDIA RTX A4500",
        "utilization": 0.87,
        "memory_used_bytes": 10235 * 2**20,
        "memory_total_bytes": 20470 * 2**20,
        "power_w": 150.5,
    }
    assert second["uuid"] == "GPU-1"


def test_what_a_card_does_not_say_is_none(nvml_folder):  # noqa: F811
    (found,) = read(driver(nvml_folder, A4500))
    assert (found["power_w"], found["energy_j"], found["utilization"]) == (None, None, 0.87)


def test_without_a_driver_or_with_a_broken_one_there_is_nobody_to_ask(nvml_folder, tmp_path):  # noqa: F811
    assert read(driver(tmp_path)) is None
    assert read(driver(nvml_folder, A4500, fault="18")) is None
