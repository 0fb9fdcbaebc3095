"""What was short is named from the server's metrics, its statistics and the client's own figures."""

import pytest

from toolkit.bench import shortage

NAMES = ("requests_active", "requests_waiting", "requests_max", "kv_fraction", "gpu_utilization", "cpu_utilization")


def document(**figures):
    samples = [
        {"t_s": float(i), **dict.fromkeys(NAMES), **{k: v for k, v in figures.items() if k in NAMES}} for i in range(8)
    ]
    queue_s = figures.get("queue_s")
    models = None if queue_s is None else {"ensemble": {"requests": 10, "queue_s": queue_s}}
    return {
        "server_metrics": {"samples": samples, "peak": samples[0]},
        "server": {"models": models},
        "e2e_latency_ms": {"mean": 1000.0},
        "client": {"cpu_share": figures.get("cpu_share", 0.1)},
        "send_lag_ms": {"p99": figures.get("lag", 1.0)},
    }


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, []),
        ({"kv_fraction": 0.97}, ["the KV cache is full"]),
        ({"kv_fraction": 0.6, "requests_active": 100, "requests_waiting": 3}, []),
        ({"requests_active": 16, "requests_waiting": 4}, ["requests queue in the server"]),
        ({"kv_fraction": 1.0, "requests_active": 4, "requests_waiting": 4},
         ["the KV cache is full", "requests queue in the server"]),
        ({"queue_s": 0.5}, []),
        ({"queue_s": 2.0}, ["requests queue in Triton, before the engine"]),
        ({"gpu_utilization": 0.97}, ["the GPU is busy all the time"]),
        ({"cpu_utilization": 0.97}, ["the server's CPU is busy all the time"]),
        ({"cpu_share": 0.95}, ["the load tester is busy"]),
        ({"lag": 80.0}, ["the load tester is busy"]),
    ],
)  # fmt: skip
def test_what_was_short_is_named(figures, expected):
    assert shortage.limited_by(document(**figures)) == expected


def test_a_moment_is_no_shortage():
    found = document(kv_fraction=1.0)
    for one in found["server_metrics"]["samples"][:5]:
        one["kv_fraction"] = 0.2
    assert shortage.limited_by(found) == []
    found["server_metrics"]["samples"][4]["kv_fraction"] = 1.0  # four of the six after the ramp
    assert shortage.limited_by(found) == ["the KV cache is full"]


def test_the_evidence_is_in_figures():
    told = shortage.evidence(
        document(kv_fraction=0.41, requests_active=32.0, requests_waiting=24.0, requests_max=32.0, gpu_utilization=0.98)
    )
    assert told == [
        "the KV cache is 41% full at most",
        "up to 32 requests are worked on, of 32 places",
        "up to 24 wait",
        "the GPU is 98% busy at most",
        "the load tester uses 10% of a core",
    ]
    assert shortage.evidence(document(requests_waiting=0.0))[1] == "nobody waits"
