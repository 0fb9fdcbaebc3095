"""The energy of a run: counters before samples, and none where nothing says power."""

import pytest

from toolkit.bench import energy
from toolkit.specs.machine import GpuUse


def gpu(uuid, energy_j):
    return GpuUse(
        uuid=uuid, title="A4500", utilization=0.5, memory_used_bytes=1.0, memory_total_bytes=2.0, power_w=100.0,
        energy_j=energy_j,
    )  # fmt: skip


def samples(*watts):
    return [{"t_s": float(second), "gpu_power_w": power} for second, power in enumerate(watts)]


def test_counters_of_all_gpus_are_added():
    looks = [(gpu("a", 1000.0), gpu("b", 50.0)), (gpu("a", 1300.0), gpu("b", 150.0))]
    assert energy.used(samples(200.0, 200.0, 200.0), looks) == {
        "source": "the GPUs' energy counters",
        "joules": 400.0,
        "watched_s": 2.0,
    }


def test_without_counters_power_is_added_up_over_time():
    found = energy.used(samples(100.0, 300.0, None, 300.0), [(gpu("a", None),), (gpu("a", None),)])
    assert found == {"source": "samples of the GPUs' power", "joules": 200.0 + 600.0, "watched_s": 3.0}


@pytest.mark.parametrize("seen", [[], samples(None, None), samples(100.0)])
def test_where_nothing_says_power_there_is_no_energy(seen):
    assert energy.used(seen, []) is None
    assert energy.per_token(None, duration_s=1.0, output_tokens=1) is None


def test_energy_falls_on_output_tokens_and_on_the_time_of_the_run():
    """100 W for ten seconds of run, seen for eleven: 1000 J for 500 tokens; a kWh is 3.6 million J."""
    found = energy.per_token({"source": "s", "joules": 1100.0, "watched_s": 11.0}, duration_s=10.0, output_tokens=500)
    assert found == {
        "source": "s",
        "joules": pytest.approx(1000.0),
        "mean_power_w": pytest.approx(100.0),
        "joules_per_output_token": pytest.approx(2.0),
        "output_tokens_per_kwh": pytest.approx(1_800_000),
    }
    assert (
        energy.per_token({"source": "s", "joules": 1.0, "watched_s": 1.0}, duration_s=1.0, output_tokens=0)[
            "joules_per_output_token"
        ]
        is None
    )
