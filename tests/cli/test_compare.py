"""`trtk compare`: a table, a document, and exit code 7 for what became worse."""

import dataclasses
import json

import pytest
from click.testing import CliRunner

from tests.bench.test_comparing import result
from toolkit import bench
from toolkit.bench.runs import Run
from toolkit.cli import main
from toolkit.specs import LoadProfile


@pytest.fixture
def written(tmp_path):
    def write(name, **changes):
        made = result(**changes)
        profile = LoadProfile(url="grpc://x", requests=400, concurrency=1, osl=32)
        run = Run(profile=profile, records=made.records, started_at="", duration_s=made.duration_s, mean_in_flight=0.9)
        bench.write(bench.summarise(run, {}), tmp_path / name, has_page=False)
        return str(tmp_path / name)

    return write


def compare(*words):
    return CliRunner().invoke(main, ["compare", *words])


def test_what_became_worse_is_named_and_ends_with_7(written):
    before, after = written("before", seed=1), written("after", seed=2, scale=1.5)
    done = compare(before, after)
    assert done.exit_code == 7
    assert f"Error: {after} is worse than {before} in: ttft_ms p50" in done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    document = json.loads(compare(before, after, "--json").stdout)
    assert document["verdict"] == "worse"
    assert {change["metric"] for change in document["changes"]} >= {"ttft_ms p50", "output_token_throughput_tps"}


def test_the_same_and_the_better_end_with_0(written):
    before = written("before", seed=1)
    assert compare(before, written("again", seed=3)).exit_code == 0
    done = compare(before, written("faster", seed=2, scale=0.5), "--json")
    assert (done.exit_code, json.loads(done.stdout)["verdict"]) == (0, "better")


def test_loads_that_differ_are_said_to(written, tmp_path):
    before, after = written("before", seed=1), written("after", seed=3)
    report = tmp_path / "after" / "report.json"
    document = json.loads(report.read_text())
    document["profile"]["concurrency"] = 9
    document["profile"]["stages"] = [{"start_rps": 5.0, "end_rps": 5.0, "duration_s": None}]
    document["valid"], document["warnings"] = False, ["The client sent late."]
    report.write_text(json.dumps(document))
    said = compare(before, after).stderr
    assert "The loads differ in concurrency (1 and 9), the rate: the change may come from that." in said
    assert "after is marked invalid: The client sent late." in said


def test_a_folder_without_a_result_is_a_wrong_path(written, tmp_path):
    done = compare(written("a", seed=1), str(tmp_path))
    assert done.exit_code == 2
    assert "is no result that is known here" in done.stderr


def test_records_survive_the_way_to_disk_and_back(written, tmp_path):
    from toolkit.bench import reading

    folder = written("a", seed=1)
    again = reading.read(tmp_path / "a").records
    assert [dataclasses.asdict(one) for one in again] == [dataclasses.asdict(one) for one in result(seed=1).records]
    assert folder.endswith("/a")
