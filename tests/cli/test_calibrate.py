"""`trtk calibrate`: from reports and from a live server to a file that plans go by."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.plan.test_speed import LLAMA
from toolkit import calibration, engine, gpus, models, plan, quant, releases
from toolkit.cli import calibrate as command
from toolkit.cli import main
from toolkit.cli.calibrate import setup_of
from toolkit.specs import MANIFEST_SCHEMA, Endpoint, EngineManifest, ServeSpec, from_json, to_json
from toolkit.specs.plans import BuildPlan

MOCK = Path(__file__).parents[1] / "bench" / "mock_triton.py"


@pytest.fixture
def built(tmp_path):
    """A folder with the manifest of a small model's CPU engine, and no engine."""
    small = {**LLAMA, "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    model = models.family_of("LlamaForCausalLM").describe({**small, "num_hidden_layers": 30, "vocab_size": 49152})
    release = releases.get("auto")
    target = plan.Target(gpu=gpus.get("cpu"), flow="auto", **releases.facts_of(release))
    target = plan.resolve(target, quant.get("int4"), recipes=(), model=model)
    made = plan.make(plan.conversion(model, quant.get("int4_rtn")), target, plan.Asked())
    manifest = EngineManifest(
        schema_version=MANIFEST_SCHEMA, kind="openvino", name="small", plan=to_json(made), model={"name": "small"},
        files=(), durations_s={}, tool_versions={"trtk": "0.1.0"},
    )  # fmt: skip
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / engine.MANIFEST).write_text(json.dumps(to_json(manifest)))
    return tmp_path / "small"


def report(folder, *, concurrency, isl, tps, tpot_ms, ttft_ms=60.0):
    folder.mkdir()
    document = {
        "requests": {"ok": 10},
        "profile": {"arrival": "closed", "concurrency": concurrency},
        "input_tokens": 10 * isl,
        "output_tokens": 640,
        "output_token_throughput_tps": tps,
        "ttft_ms": {"mean": ttft_ms},
        "tpot_ms": {"mean": tpot_ms},
    }
    (folder / "report.json").write_text(json.dumps(document))
    return str(folder)


@pytest.fixture
def reports(tmp_path):
    """Roughly what two cores measured of the demo model: alone, eight, thirty-two, and a long prompt."""
    return [
        report(tmp_path / "c1", concurrency=1, isl=128, tps=105.0, tpot_ms=8.6, ttft_ms=68),
        report(tmp_path / "c8", concurrency=8, isl=128, tps=390.0, tpot_ms=19.0, ttft_ms=115),
        report(tmp_path / "c32", concurrency=32, isl=128, tps=640.0, tpot_ms=46.0, ttft_ms=300),
        report(tmp_path / "long", concurrency=1, isl=768, tps=72.0, tpot_ms=9.5, ttft_ms=300),
    ]


def trtk(*arguments):
    return CliRunner().invoke(main, ["calibrate", *arguments], catch_exceptions=False)


def of_reports(built, reports, *more):
    return trtk("--engine", str(built), *(word for path in reports for word in ("--report", path)), *more)


def test_reports_become_a_calibration_that_plans_go_by(built, reports):
    done = of_reports(built, reports)
    assert done.exit_code == 0, done.output
    assert "cpu, openvino, int4_rtn" in done.stdout
    (found,) = calibration.read_all()
    assert (found.gpu, found.engine, found.recipe, found.model) == ("cpu", "openvino", "int4_rtn", "small")
    assert len(found.points) == 4
    assert found.versions["trtk"]

    from toolkit.cli.plan_making import predictor
    from toolkit.specs import Workload

    setup = setup_of(from_json(BuildPlan, engine.manifest_of(built).plan))
    for point, measured in zip(found.points[:3], (105.0, 390.0, 640.0), strict=True):
        load = Workload(isl=128, osl=64, isl_max=128, osl_max=64, concurrency=point.concurrency)
        said = predictor()(setup, load)
        assert said.provenance == "calibrated"
        assert said.output_tps.mid == pytest.approx(measured, rel=0.05)
        assert said.tpot_ms.mid == pytest.approx(point.tpot_ms, rel=0.15)


def test_json_has_the_constants_and_where_they_are_kept(built, reports):
    document = json.loads(of_reports(built, reports, "--json").stdout)
    assert Path(document["path"]).is_file()
    assert {"compute_tflops", "bandwidth_gb_per_s", "step_ms", "points", "date"} <= document.keys()


def test_a_dry_run_keeps_nothing(built, reports):
    done = of_reports(built, reports, "--dry-run")
    assert "Nothing was kept." in done.stdout
    assert calibration.read_all() == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--report", "r"], "Reports do not say which card and engine they are of."),
        (["--engine", "e"], "--engine belongs to --report."),
        ([], "No server is running here."),
        ([], "Hint: Start one with `trtk serve ENGINE --detach`, or give --engine FOLDER and --report FOLDERS."),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_sentence(arguments, sentence):
    done = trtk(*arguments)
    assert done.exit_code in {2, 4}
    assert sentence in done.stderr


def test_rounds_are_of_runs_that_are_made_now(built, reports):
    done = of_reports(built, reports, "--rounds", "3")
    assert (done.exit_code, "--rounds 3 is of runs that are made now" in done.stderr) == (2, True)


def test_a_report_that_is_none_is_named(built, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "report.json").write_text("{}")
    done = trtk("--engine", str(built), "--report", str(tmp_path / "x"))
    assert (done.exit_code, "x is not a report of trtk bench" in done.stderr) == (2, True)


@pytest.fixture
def scripted(tmp_path):
    """A scripted Triton that takes 20 ms for a first token and 5 ms for each other, whatever the load."""
    with contextlib.ExitStack() as stack:
        line = [sys.executable, str(MOCK), json.dumps({"ttft_s": 0.02, "gap_s": 0.005}), str(tmp_path / "log")]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        stack.callback(process.stdout.close)
        stack.callback(process.wait)
        stack.callback(process.kill)
        yield f"127.0.0.1:{json.loads(process.stdout.readline())['grpc']}"


def test_a_live_server_is_measured_under_each_load(built, scripted, monkeypatch):
    loads = tuple(calibration.Load(concurrency=count, isl=16, osl=16, requests=3 * count) for count in (1, 2))
    monkeypatch.setattr(calibration, "loads_within", lambda _, rounds: loads * rounds)
    spec = ServeSpec(name="scripted", repository=str(built), backend="embedded")
    end = Endpoint(
        name="s", http_url="", grpc_url=scripted, metrics_url="", pid=1, log_path="", started_at="", spec=spec
    )
    points = command._measured(end, from_json(BuildPlan, engine.manifest_of(built).plan), 2)
    assert [(point.concurrency, point.osl) for point in points] == [(1, 16), (2, 16), (1, 16), (2, 16)]
    for point in points:
        # The timetable is absolute: a first token that comes late is made up for by the others.
        assert point.ttft_ms >= 20
        assert point.ttft_ms + 15 * point.tpot_ms >= 95
        assert point.output_tps <= point.concurrency * 16 / 0.095
