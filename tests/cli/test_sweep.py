"""`trtk bench --sweep`: the knee and the cliff of a server whose capacity is known, and what happened there."""

import json
import re

import pytest
from click.testing import CliRunner

from tests.bench.conftest import serve as serve  # noqa: PLC0414 - the fixture
from toolkit.cli import bench_runs, main


def trtk(*words):
    return CliRunner().invoke(main, ["bench", *(str(word) for word in words)])


def test_knee_and_cliff_are_named_with_what_happened(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    served = serve(ttft_s=0.05, gap_s=0.1, capacity=8)
    done = trtk("--url", served.http, "--sweep", "concurrency=4..16", "--osl", "5", "--requests", "24", "--metrics-url",
                f"{served.http}/metrics", "--price", "36EUR/h", "-o", tmp_path)  # fmt: skip
    found = json.loads((tmp_path / "sweep.json").read_text())

    assert done.exit_code == 0, done.stderr
    assert [step["load"] for step in found["steps"]] == [4, 8, 16]
    assert (found["knee"], found["is_knee_inside"]) == (8, True)
    assert (found["cliff"]["last_good"], found["cliff"]["first_bad"]) == (8, 16)
    assert found["cliff"]["cause"].startswith("requests queue in the server")  # a busy machine may add the load tester
    assert "Knee at 8 in flight: more load adds more to latency than to throughput." in done.stdout
    assert re.search(r"Cliff between 8 and 16 in flight: TTFT p95 grows from \d+ to \d{3}", done.stdout)
    assert "up to 8 requests are worked on, of 8 places; up to 8 wait" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()[:9]) <= 80
    # Eight at a time, each 0.45 s for five tokens: 89 tokens a second at the most.
    assert 50 < found["steps"][-1]["tokens_per_s"] < 90
    assert found["steps"][-1]["cost_per_million"] == pytest.approx(10_000 / found["steps"][-1]["tokens_per_s"])
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("<svg") == 3
    for load in (4, 8, 16):
        assert f'href="concurrency-{load}/report.html"' in page
        assert (tmp_path / f"concurrency-{load}" / "report.html").is_file()


def test_a_server_that_ends_ends_the_sweep_and_keeps_what_was_measured(serve, tmp_path):
    done = trtk("--url", serve(die_at_request=45, ttft_s=0.01).grpc, "--sweep", "concurrency=1,2,4", "--osl", "4",
                "--warmup", "0", "--requests", "20", "-o", tmp_path, "--json")  # fmt: skip
    found = json.loads(done.stdout)
    assert done.exit_code == 6
    assert "stopped answering" in found["stop_reason"]
    assert [step["load"] for step in found["steps"]] == [1, 2, 4]
    assert not found["steps"][-1]["is_valid"]
    assert all(step["tokens_per_s"] > 0 for step in found["steps"][:-1])
    assert found == json.loads((tmp_path / "sweep.json").read_text())


@pytest.mark.parametrize(
    "words", [("--sweep", "concurrency=1,2,4"), ("--find-max", "concurrency", "--slo", "ttft=1ms")]
)
def test_ctrl_c_in_the_warm_up_of_a_later_load_keeps_the_earlier_ones(serve, tmp_path, monkeypatch, words):
    run, loads = bench_runs.Series.run, []

    def interrupted(self, asked):
        loads.append(asked.concurrency)
        if len(loads) > 1:
            raise KeyboardInterrupt
        return run(self, asked)

    monkeypatch.setattr(bench_runs.Series, "run", interrupted)
    done = trtk("--url", serve(ttft_s=0.01).grpc, *words, "--osl", "4", "--requests", "8", "-o", tmp_path, "--json")
    found = json.loads(done.stdout)

    assert (done.exit_code, found["interrupted"], len(loads)) == (130, True, 2)
    assert [step["load"] for step in found.get("steps") or found["tried"]] == loads[:1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--sweep", "isl=1..4"), "'isl=1..4' is no sweep."),
        (("--sweep", "rate=4..1"), "From 4 to 1 nothing grows."),
        (("--sweep", "rate=1..4", "--find-max", "rate"), "--find-max and --sweep exclude each other."),
    ],
)
def test_what_is_no_sweep_is_refused_before_anything_is_asked(options, said, tmp_path):
    done = trtk("--url", "grpc://127.0.0.1:1", *options, "-o", tmp_path / "r")
    assert (done.exit_code, said in done.stderr) == (2, True)
    assert not (tmp_path / "r").exists()
