"""The files for servers that do not run, and what is said about them."""

import json

import yaml
from click.testing import CliRunner

from toolkit.cli import main

FOR_ENGINES = ("--for", "engine", "--address", "10.0.0.7:8002", "--address", "10.0.0.8:8002")


def trtk(*arguments):
    done = CliRunner().invoke(main, ["monitoring", *arguments], catch_exceptions=False)
    return done.exit_code, done.stdout, done.stderr


def test_servers_elsewhere_are_scraped_by_their_address(tmp_path):
    code, out, err = trtk(*FOR_ENGINES, "--gateway", "10.0.0.7:9000", "-o", f"{tmp_path}/made")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"Wrote 5 files to {tmp_path}/made: 13 alerts, 24 panels.",
        "4 more alerts and panels read what nobody here exports: README.md lists them.",
        f"Next: promtool check config {tmp_path}/made/prometheus.yml; {tmp_path}/made/README.md has the commands.",
    ]
    jobs = yaml.safe_load((tmp_path / "made/prometheus.yml").read_text())["scrape_configs"]
    assert {job["job_name"]: [one["targets"] for one in job["static_configs"]] for job in jobs} == {
        "triton": [["10.0.0.7:8002"], ["10.0.0.8:8002"]],
        "trtk-gateway": [["10.0.0.7:9000"]],
    }


def test_a_dry_run_lists_what_would_be_missing_and_writes_nothing(tmp_path):
    code, out, _ = trtk("--for", "cpu", "--address", "127.0.0.1:8002", "-o", f"{tmp_path}/made", "--dry-run")
    first, *rest = out.splitlines()
    assert (code, first) == (0, f"Would write 5 files to {tmp_path}/made: 8 alerts, 17 panels.")
    assert "  not in it: alert TrtkGpuHot: nobody exports DCGM_FI_DEV_GPU_TEMP" in rest
    assert list(tmp_path.iterdir()) == []


def test_json_says_what_was_written_and_what_was_not(tmp_path):
    code, out, _ = trtk(*FOR_ENGINES, "-o", f"{tmp_path}/made", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["files"] == sorted(path.name for path in (tmp_path / "made").iterdir())
    assert document["targets"][1] == {
        "server": "10.0.0.8:8002",
        "job": "triton",
        "address": "10.0.0.8:8002",
        "path": "/metrics",
        "needs_key": False,
    }
    assert {"what": "alert TrtkGpuHot", "missing": ["DCGM_FI_DEV_GPU_TEMP"]} in document["left_out"]


def test_files_of_somebody_else_stop_it_before_anything_is_written(tmp_path):
    (tmp_path / "README.md").write_text("mine\n")
    code, out, err = trtk(*FOR_ENGINES, "-o", str(tmp_path))
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {tmp_path}/README.md is there and was not made by `trtk monitoring`.\nHint: ")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
