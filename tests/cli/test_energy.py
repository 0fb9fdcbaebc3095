"""Energy per token: GPUs of a driver that is a library of ours, from its counter or its power to the report."""

import json
import subprocess
import sys

import pytest

from tests.bench.conftest import serve as serve  # noqa: PLC0414 - the fixture
from tests.machine.nvml_stand_in import driver, nvml_folder  # noqa: F401 - a fixture

A4500 = "NVIDIA RTX A4500|8.6|20470|10235"
EMPTY = "NVIDIA RTX A4500|8.6|20470|20400"


@pytest.mark.parametrize(
    ("more", "source"),
    [({"NVML_COUNTS_ENERGY": "1"}, "the GPUs' energy counters"), ({}, "samples of the GPUs' power")],
)
def test_energy_per_token_is_power_over_throughput(serve, nvml_folder, tmp_path, more, source):  # noqa: F811
    environment = driver(nvml_folder, A4500, EMPTY) | {"NVML_POWER_MW": "150000", **more}
    done = subprocess.run(
        [sys.executable, "-c", "from toolkit.cli import main; main()", "bench", "--url", serve(gap_s=0.02).http,
         "--requests", "40", "--concurrency", "4", "--osl", "8", "-o", tmp_path, "--json"],
        env=environment, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    found = document["energy"]
    # One of the two cards has something in its memory: that is the server's.
    assert [gpu["uuid"] for gpu in document["server_metrics"]["gpus"]] == ["GPU-0"]
    assert found["source"] == source
    assert found["mean_power_w"] == pytest.approx(150, rel=0.02)
    assert found["joules"] == pytest.approx(150 * document["duration_s"], rel=0.02)
    assert found["joules_per_output_token"] == pytest.approx(150 / document["output_token_throughput_tps"], rel=0.02)
    assert document["server_metrics"]["peak"]["gpu_utilization"] == 0.87
