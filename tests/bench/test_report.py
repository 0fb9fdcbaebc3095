import csv
import dataclasses
import json
import re

import pytest

from toolkit import bench
from toolkit.bench import plots
from toolkit.bench.runs import Run
from toolkit.errors import MissingError
from toolkit.specs import LoadProfile, RequestRecord


def run(count: int) -> Run:
    records = tuple(
        RequestRecord(
            request_id=f"0-{index}",
            scheduled_s=float(index),
            sent_s=index + 0.001,
            first_token_s=index + 0.1,
            last_token_s=index + 0.8,
            end_s=index + 0.81,
            input_tokens=20 + index,
            output_tokens=8,
            first_chunk_tokens=1,
            chunks=8,
            outcome="ok",
        )
        for index in range(count)
    )
    failed = dataclasses.replace(records[0], outcome="failed", error="timeout", message="<b>late</b>")
    return Run(
        profile=LoadProfile(url="grpc://here:8001", model="<ensemble>", requests=count, osl=8, slos=("ttft=1s",)),
        records=(*records[1:], failed),
        started_at="2026-01-01T00:00:00.000+00:00",
        duration_s=float(count),
        mean_in_flight=0.809,
        server={"name": "triton", "version": "2.51.0", "models": None},
    )


@pytest.fixture
def report():
    return bench.summarise(run(10), {"os": "test", "packages": {"grpcio": "1"}})


def test_the_files_hold_the_document_the_records_and_the_page(report, tmp_path):
    page = bench.write(report, tmp_path / "made")
    assert json.loads((page.parent / "report.json").read_text()) == report.document
    rows = [json.loads(line) for line in (page.parent / "requests.jsonl").read_text().splitlines()]
    assert rows == [dataclasses.asdict(record) for record in report.records]
    names = ["report.csv", "report.html", "report.json", "requests.csv", "requests.jsonl"]
    assert sorted(path.name for path in page.parent.iterdir()) == names


def test_a_spreadsheet_reads_every_metric_with_its_unit_and_every_request(report, tmp_path):
    folder = bench.write(report, tmp_path, has_page=False).parent

    metrics = {row["metric"]: row for row in csv.DictReader((folder / "report.csv").read_text().splitlines())}
    assert {name for name in metrics if name.endswith("_ms")} >= {"ttft_ms", "itl_ms", "tpot_ms", "e2e_latency_ms"}
    assert (metrics["ttft_ms"]["unit"], float(metrics["ttft_ms"]["p99"])) == ("ms", report.document["ttft_ms"]["p99"])
    assert (metrics["requests.failed"]["value"], metrics["errors.timeout"]["value"]) == ("1", "1")
    assert metrics["slo.0.target_ms"]["value"] == "1000.0"
    rows = list(csv.DictReader((folder / "requests.csv").read_text().splitlines()))
    assert [row["request_id"] for row in rows] == [record.request_id for record in report.records]
    assert float(rows[0]["ttft_ms"]) == pytest.approx(100)
    assert (rows[0]["output_tokens"], rows[0]["error"]) == ("8", "")
    assert (rows[-1]["outcome"], rows[-1]["error"]) == ("failed", "timeout")


def test_the_page_needs_no_network_and_lets_nothing_in(report, tmp_path):
    page = bench.write(report, tmp_path).read_text()
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page) + re.findall(r"url\(([^)]*)\)", page)
    assert {source for source in sources if not source.startswith(("#", "data:"))} == set()
    assert "<script" not in page
    assert "<b>late</b>" not in page
    assert "&lt;ensemble&gt;" in page


def test_every_plot_has_data_and_the_colours_of_the_page(report):
    drawn = plots.draw(report.records, duration_s=10.0)
    assert [plot.name for plot in drawn] == ["over-time", "cdf", "throughput", "timeline", "tokens"]
    for plot in drawn:
        assert "var(--first)" in plot.svg
        assert not any(colour in plot.svg for colour in plots.PAGE_COLOURS)
    assert drawn[0].svg.count("<use ") >= 2 * 9
    assert "var(--bad)" in drawn[3].svg


def test_the_same_records_draw_the_same_bytes(report):
    first, again = (plots.draw(report.records, duration_s=10.0) for _ in range(2))
    assert first == again


def test_a_run_without_success_has_a_page_without_plots(report, tmp_path):
    failed = bench.summarise(dataclasses.replace(run(2), records=report.records[-1:]), {})
    assert "there is nothing to draw" in bench.write(failed, tmp_path).read_text()


def test_a_folder_that_cannot_be_made_is_named(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((MissingError, NotADirectoryError, FileExistsError), match="file"):
        bench.write(report, tmp_path / "file" / "report")


def test_ctrl_c_while_the_page_is_drawn_keeps_the_numbers(report, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(plots, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.write(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["requests"] == report.document["requests"]
