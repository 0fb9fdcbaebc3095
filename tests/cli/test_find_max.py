"""`trtk bench --find-max`: the limit of a server whose capacity is known, and what is said when there is none."""

import json

import pytest
from click.testing import CliRunner

from tests.bench.conftest import serve as serve  # noqa: PLC0414 - the fixture
from toolkit.cli import main

SLO = ("--slo", "ttft=300ms@p95")


def trtk(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_highest_concurrency_is_the_capacity(serve, tmp_path):
    served = serve(ttft_s=0.1, slow_above=20)
    done = trtk(
        "bench", "--url", served.http, "--find-max", "concurrency", "--osl", "2", *SLO, "-o", tmp_path, "--json"
    )
    found = json.loads(done.stdout)

    assert done.exit_code == 0, done.stderr
    assert 19 <= found["best"] <= 21
    assert found["is_bracketed"] is True
    assert len(found["tried"]) <= 8
    assert found["best"] == max(one["load"] for one in found["tried"] if one["is_met"])
    assert found == json.loads((tmp_path / "search.json").read_text())
    assert (tmp_path / f"concurrency-{found['best']:g}" / "report.html").is_file()


def test_a_rate_is_searched_in_an_open_loop(serve, tmp_path):
    # Five at a time of 0.1 s each: fifty a second, and a queue that grows above.
    served = serve(ttft_s=0.1, capacity=5)
    done = trtk(
        "bench", "--url", served.http, "--find-max", "rate", "--rate", "40", "--arrival", "constant", "--osl", "2",
        "--duration", "3", *SLO, "-o", tmp_path, "--json",
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert 46 <= found["best"] <= 53
    assert {"load", "is_met", "certainty", "excess"} <= found["tried"][0].keys()


def test_a_limit_that_is_missed_from_the_start_ends_with_7(serve, tmp_path):
    served = serve(ttft_s=0.05)
    done = trtk("bench", "--url", served.http, "--find-max", "concurrency", "--osl", "1", "--slo", "ttft=1ms",
                "--concurrency", "2", "-o", tmp_path)  # fmt: skip
    assert done.exit_code == 7
    assert "Error: No load meets ttft=1ms; the lowest that was tried is 1." in done.stderr
    assert "Not even the lowest load meets the objectives." in done.stdout


@pytest.mark.parametrize("options", [[], ["--slo", "fast"]])
def test_a_search_without_an_objective_is_refused(serve, tmp_path, options):
    done = trtk("bench", "--url", serve().http, "--find-max", "rate", *options, "-o", tmp_path / "r")
    assert done.exit_code == 2
    assert not (tmp_path / "r").exists()
