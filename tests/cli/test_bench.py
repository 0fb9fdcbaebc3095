import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from toolkit.bench import validity
from toolkit.cli import main

MOCK = Path(__file__).parents[1] / "bench" / "mock_triton.py"


@pytest.fixture
def url(tmp_path):
    """Start a scripted server and return its gRPC address."""
    with contextlib.ExitStack() as stack:

        def start(**script) -> str:
            process = subprocess.Popen(
                [sys.executable, str(MOCK), json.dumps(script), str(tmp_path / "log")],
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.stdout.close)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return f"grpc://127.0.0.1:{json.loads(process.stdout.readline())['grpc']}"

        yield start


def trtk(*arguments: str):
    return CliRunner().invoke(main, ["bench", *arguments], catch_exceptions=False)


def test_json_on_stdout_is_report_json(url, tmp_path):
    done = trtk("--url", url(), "--concurrency", "2", "--requests", "6", "--osl", "8", "-o", f"{tmp_path}/r", "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "r/report.json").read_text())
    assert (document["requests"]["ok"], document["output_tokens"]) == (6, 48)
    assert document["valid"] == (
        document["send_lag_ms"]["p99"] <= validity.MAX_SEND_LAG_P99_MS
    )  # a busy machine sends late
    assert (document["profile"]["requests"], document["profile"]["warmup_requests"]) == (6, 2)


def test_a_person_reads_a_table_of_80_columns_and_where_the_report_is(url, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = trtk("--url", url(ttft_s=0.01), "--concurrency", "1", "--price", "1EUR/h", "-o", f"{tmp_path}/r")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines[:-1]) <= 80
    assert [line.split()[0] for line in lines if line.startswith((" TTFT", " ITL", " TPOT", " end", " send"))] == [
        "TTFT",
        "ITL",
        "TPOT",
        "end",
        "send",
    ]
    assert "requests                   10 ok, 0 failed, 0 cancelled" in lines
    assert "counted by                 the server" in lines
    assert lines[-1] == f"report                     {tmp_path}/r/report.html"


def test_a_missed_objective_is_exit_7_after_the_report_is_written(url, tmp_path):
    done = trtk("--url", url(ttft_s=0.05), "--requests", "8", "--slo", "ttft=10ms", "-o", f"{tmp_path}/r")
    assert done.exit_code == 7
    assert "Error: An objective was missed: ttft is " in done.stderr  # a busy machine may add warnings before it
    assert "at p95, the target is 10 ms." in done.stderr
    assert json.loads((tmp_path / "r/report.json").read_text())["slo"][0]["verdict"] == "missed"


def test_a_met_objective_is_exit_0(url, tmp_path):
    assert trtk("--url", url(), "--requests", "8", "--slo", "e2e=10s@p99", "-o", f"{tmp_path}/r").exit_code == 0


def test_a_server_that_is_not_there_is_exit_6_and_no_report(tmp_path):
    done = trtk("--url", "grpc://127.0.0.1:1", "-o", f"{tmp_path}/r")
    assert done.exit_code == 6
    assert done.stderr.startswith("Error: No Triton server answers at grpc://127.0.0.1:1: ")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--requests", "5", "--duration", "5"], "--requests and --duration exclude each other."),
        (["--slo", "ttft"], "'ttft' is not an objective."),
        (["--price", "cheap"], "'cheap' is not an hourly price, and no GPU has that name."),
        (["--prompts", "/nowhere"], "The prompts in /nowhere cannot be read"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["--url", "grpc://[::1"], "'grpc://[::1' is not a URL."),
        (["--url", "ftp://x"], "There is no protocol named 'ftp'."),
    ],
)
def test_what_cannot_be_meant_is_exit_2(arguments, message):
    done = trtk("--url", "grpc://127.0.0.1:1", *arguments)
    assert (done.exit_code, message in done.stderr) == (2, True)


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_sent(url, tmp_path):
    (tmp_path / "file").write_text("")
    done = trtk("--url", url(), "--requests", "1", "-o", f"{tmp_path}/file/r")
    assert (done.exit_code, done.stderr.splitlines()[0]) == (
        4,
        f"Error: A file is where a folder has to be for {tmp_path}/file/r.",
    )
    assert not (tmp_path / "log").read_text()


def test_help_has_examples():
    said = trtk("--help").stdout
    assert said.count("trtk bench --") == 2


def test_without_a_url_and_a_running_server_the_hint_is_to_start_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTK_STATE", str(tmp_path))
    done = trtk()
    assert (done.exit_code, done.stderr) == (
        4,
        "Error: No server is running here.\nHint: Start one with `trtk serve ENGINE --detach`, or give --url.\n",
    )
