"""trtk eval: figures for people and for programs, and gates with an exit code."""

import json

import pytest
from click.testing import CliRunner

from tests.convert.checkpoints import convert_model
from toolkit.cli import main

FIGURES = ["ppl", "ppl_base", "ppl_increase_pct", "kl", "top1", "tokens", "gates", "layers"]


@pytest.fixture(scope="module")
def checkpoint(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "int4"
    convert_model(llama[0], folder, "int4_rtn")
    return folder


@pytest.fixture
def trtk(llama, checkpoint):
    """Run `trtk eval` on a plainly rounded checkpoint of the tiny model."""

    def ran(*options, folder=checkpoint, model=llama[0]):
        fixed = ["eval", str(folder), "--model", str(model), "--rows", "2", "--length", "64"]
        return CliRunner().invoke(main, [*fixed, *options])

    return ran


def test_json_is_one_document_with_the_agreed_keys(trtk, checkpoint, llama):
    done = trtk("--json")

    found = json.loads(done.stdout)
    assert list(found) == ["checkpoint", "model", "text", *FIGURES, "duration_s"]
    assert (found["checkpoint"], found["model"], found["text"]) == (str(checkpoint), str(llama[0]), "bundled")
    assert (found["tokens"], found["gates"], len(found["layers"])) == (126, [], 2)
    assert found["ppl_increase_pct"] == pytest.approx(100 * (found["ppl"] / found["ppl_base"] - 1))
    assert found["layers"][1]["algos"] == dict.fromkeys(found["layers"][0]["groups"], "W4A16_AWQ")


def test_people_see_the_layers_and_the_figures_in_80_columns(trtk):
    done = trtk("--max-kl", "100")

    lines = done.stdout.splitlines()
    assert (done.exit_code, max(map(len, lines)) <= 80) == (0, True)
    assert lines[2].split() == ["layer", "behind", "it", "qkv", "dense", "mlp.fc", "mlp.proj"]
    assert [line.split()[0] for line in lines[4:6]] == ["0", "1"]
    words = done.stdout.split()
    assert {"perplexity", "KL", "top-1", "met"} <= set(words)


@pytest.mark.parametrize(
    ("option", "limit", "figure", "sentence"),
    [
        ("--max-kl", 1e-6, "kl", "its KL divergence is {:.4f} nats per token, more than the 1e-06 of"),
        (
            "--max-ppl-increase",
            0.01,
            "ppl_increase_pct",
            "its perplexity is {:.2f}% above the original's, more than the",
        ),
    ],
)
def test_a_missed_gate_exits_7_with_both_numbers_and_still_prints_the_document(trtk, option, limit, figure, sentence):
    done = trtk("--json", option, str(limit))

    found = json.loads(done.stdout)
    assert found["gates"] == [{"name": figure, "limit": limit, "value": found[figure], "verdict": "missed"}]
    assert done.exit_code == 7
    assert f"misses its quality gate: {sentence.format(found[figure])}" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Hint: ")


def test_a_met_gate_exits_0(trtk):
    done = trtk("--json", "--max-kl", "50")

    (gate,) = json.loads(done.stdout)["gates"]
    assert (done.exit_code, gate["verdict"]) == (0, "met")


def test_a_build_folder_is_judged_by_its_checkpoint(trtk, checkpoint, tmp_path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "checkpoint").symlink_to(checkpoint)

    assert json.loads(trtk("--json", folder=tmp_path).stdout)["kl"] == json.loads(trtk("--json").stdout)["kl"]


def test_a_folder_that_is_not_there_exits_2(trtk, tmp_path):
    done = trtk(folder=tmp_path / "nothing")

    assert done.exit_code == 2
    assert f"There is no folder {tmp_path / 'nothing'}." in done.stderr
