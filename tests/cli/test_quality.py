"""Quality gates and --quant auto where a checkpoint is made: quantize and build."""

import json

import pytest
from click.testing import CliRunner

from toolkit.cli import main


def trtk(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def build(llama, tmp_path):
    """Run `trtk build` of the tiny model into a bundle: nothing is compiled for a GPU that is not there."""

    def ran(*options, quant="int4_rtn"):
        fixed = ["build", llama[0], "--gpu", "a4500", "--quant", quant, "-o", tmp_path / "engine", "--json"]
        return trtk(*fixed, *options)

    return ran


def test_quantize_auto_says_what_it_chose(llama, tmp_path):
    done = trtk(
        "quantize", llama[0], "--quant", "auto", "--candidates", "int4_rtn, int8", "--target-bits", 6,
        "--calib-samples", 2, "--calib-length", 16, "-o", tmp_path / "made", "--json",
    )  # fmt: skip

    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    found = result["assignment"]
    assert (result["quant"], found["candidates"], found["target_bits"]) == ("auto", ["int4_rtn", "int8"], 6.0)
    assert 4 < found["mean_bits"] <= 6
    assert 0 < found["estimated_kl"] < 1
    assert found["groups"].keys() == {"int4_rtn", "int8"}
    assert found == json.loads((tmp_path / "made" / "auto.json").read_text(encoding="utf-8"))


def test_quantize_auto_verifies_a_bound_on_the_divergence(llama, tmp_path):
    done = trtk(
        "quantize", llama[0], "--quant", "auto", "--candidates", "int4_rtn,int8", "--max-kl", 1,
        "--calib-samples", 2, "--calib-length", 16, "-o", tmp_path / "made",
    )  # fmt: skip

    assert done.exit_code == 0, done.stderr
    assert "4.00 bits per weight (8 groups int4_rtn); KL estimated 0.0" in done.stdout
    assert ", measured 0.0" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quant", "auto"], "--quant auto needs a bound"),
        (["--quant", "int4", "--target-bits", "4.5"], "are for --quant auto, not for int4"),
        (["--quant", "auto", "--target-bits", "4.5", "--candidates", "int4,int9"], "no quantization named 'int9'"),
        (["--quant", "auto", "--target-bits", "4.5", "--candidates", "int4"], "nothing to choose"),
        (["--quant", "auto", "--target-bits", "6", "--pp", "2"], "one entry for the layers of all stages"),
    ],
)
def test_a_search_that_cannot_be_meant_is_refused_before_any_work(llama, tmp_path, options, message):
    done = trtk("quantize", llama[0], *options, "-o", tmp_path / "made")

    assert done.exit_code in {2, 3}
    assert message in done.stderr
    assert not (tmp_path / "made.partial").exists()


def test_quantize_judges_what_it_made_and_keeps_it(llama, tmp_path):
    done = trtk("quantize", llama[0], "--quant", "int4_rtn", "--max-kl", 1e-6, "-o", tmp_path / "made", "--json")

    found = json.loads(done.stdout)
    assert (done.exit_code, found["evaluation"]["gates"][0]["verdict"]) == (7, "missed")
    assert (tmp_path / "made" / "config.json").is_file()


def test_a_build_that_misses_its_gate_stops_before_it_compiles_and_keeps_the_checkpoint(build, tmp_path):
    missed = build("--max-kl", 1e-6)
    made = (tmp_path / "engine.partial" / "checkpoint" / "rank0.safetensors").stat().st_mtime_ns
    met = build("--max-kl", 10)

    assert (missed.exit_code, met.exit_code) == (7, 0)
    assert "misses its quality gate: its KL divergence is 0.0" in missed.stderr
    assert (tmp_path / "engine" / "checkpoint" / "rank0.safetensors").stat().st_mtime_ns == made
    manifest = json.loads((tmp_path / "engine" / "manifest.json").read_text(encoding="utf-8"))
    (gate,) = manifest["evaluation"]["gates"]
    assert (gate["name"], gate["limit"], gate["verdict"]) == ("kl", 10, "met")
    assert manifest["evaluation"]["kl"] == gate["value"] == json.loads(met.stdout)["evaluation"]["kl"]
    assert manifest["durations_s"]["evaluate"] > 0


def test_a_build_that_is_there_is_judged_when_asked(build):
    first, judged = build(), build("--max-kl", 1e-6)

    assert (first.exit_code, json.loads(first.stdout)["evaluation"]) == (0, None)
    assert judged.exit_code == 7
