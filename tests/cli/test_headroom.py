"""`--slo 80-percent`: the load is four fifths of what the server takes, p95 is to be within 1.5 s."""

import json

from click.testing import CliRunner

from tests.bench.conftest import serve as serve  # noqa: PLC0414 - the fixture
from toolkit.cli import main


def trtk(*words):
    return CliRunner().invoke(main, ["bench", *(str(word) for word in words)])


def test_the_load_is_four_fifths_of_the_places_that_the_server_names(serve, tmp_path):
    served = serve(capacity=10, ttft_s=0.01)
    done = trtk("--url", served.http, "--metrics-url", f"{served.http}/metrics", "--slo", "80-percent", "--osl", "2",
                "-o", tmp_path / "r", "--json")  # fmt: skip
    found = json.loads(done.stdout)
    assert done.exit_code == 0, done.stderr
    assert "80 % of 10 in flight: 8." in done.stderr
    assert (found["profile"]["concurrency"], found["requests"]["ok"]) == (8, 80)
    assert [(row["name"], row["target_ms"], row["percentile"]) for row in found["slo"]] == [("e2e", 1500.0, 95.0)]


def test_of_a_server_that_names_none_the_most_is_asked_for(serve, tmp_path):
    url = serve(ttft_s=0.01).http
    refused = trtk("--url", url, "--slo", "80-percent", "-o", tmp_path / "r")
    assert refused.exit_code == 2
    assert "Error: 80 % of what?" in refused.stderr
    done = trtk("--url", url, "--slo", "80-percent", "--concurrency", "6", "--requests", "5", "--osl", "2", "-o",
                tmp_path / "r", "--json")  # fmt: skip
    found = json.loads(done.stdout)
    assert (found["profile"]["concurrency"], found["requests"]["sent"]) == (4, 5)


def test_a_rate_has_no_four_fifths(tmp_path):
    done = trtk("--url", "http://127.0.0.1:1", "--slo", "80-percent", "--rate", "5", "-o", tmp_path)
    assert done.exit_code == 2
    assert "is about requests in flight, not about a rate" in done.stderr
