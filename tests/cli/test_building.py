"""What lies in the way of a build: a damaged manifest, leftovers of another plan, a device that is not there."""

import json
import shutil

import pytest
import torch
from click.testing import CliRunner

from tests.conftest import save_llama
from toolkit import engine
from toolkit.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny Llama whose head size TensorRT-LLM's attention has."""
    folder = tmp_path_factory.mktemp("tiny") / "hf"
    save_llama(folder, hidden_size=256, num_attention_heads=4, num_key_value_heads=2)
    return folder


def build(model, folder, *options):
    """Build a bundle, which needs no compiler; return the JSON result."""
    line = ["build", str(model), "--gpu", "a4500", "--quant", "int4_rtn", "-o", str(folder), "--json", *options]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "7", '"text"', "\xff", '{"schema_version": 99}', '{"schema_version": 1, "plan": []}'],
)
def test_a_manifest_that_is_none_is_replaced_by_a_build(model, tmp_path, content):
    first = build(model, tmp_path / "engine")
    whole = (tmp_path / "engine/manifest.json").read_text()
    (tmp_path / "engine/manifest.json").write_bytes(content.encode("latin-1"))

    again = build(model, tmp_path / "engine")

    assert (first["is_reused"], again["is_reused"], build(model, tmp_path / "engine")["is_reused"]) == (
        False,
        False,
        True,
    )
    files = [json.loads(text)["files"] for text in (whole, (tmp_path / "engine/manifest.json").read_text())]
    assert [record["path"] for record in files[0]] == [record["path"] for record in files[1]]


@pytest.mark.parametrize("shards", [None, "x", [1], [{"name": "a"}]])
def test_a_manifest_without_its_shards_is_not_current(model, tmp_path, shards):
    build(model, tmp_path / "engine")
    path = tmp_path / "engine/manifest.json"
    document = json.loads(path.read_text())
    document["model"]["shards"] = shards
    path.write_text(json.dumps(document))

    assert engine.manifest_of(tmp_path / "engine") is not None
    assert build(model, tmp_path / "engine")["is_reused"] is False


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 99}', '{"schema_version": 1, "plan": 1}'])
def test_serving_a_damaged_manifest_is_one_sentence(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)

    result = CliRunner().invoke(main, ["serve", str(tmp_path)])

    assert result.exit_code == 2
    assert f"{tmp_path / 'manifest.json'} is not a manifest of this version of trtk: " in result.stderr


def test_what_another_plan_left_is_not_sealed_into_the_build(model, tmp_path):
    clean = build(model, tmp_path / "clean")
    work = tmp_path / "engine.partial"
    for stale in ("engine/rank0.engine", "checkpoint.partial/rank0.safetensors", "model_repository/old/config.pbtxt"):
        (work / stale).parent.mkdir(parents=True, exist_ok=True)
        (work / stale).write_bytes(b"of another plan")
    (work / "start.py").write_text("of another plan")
    (work / "plan.json").write_text("{}")
    (work / "link").symlink_to(tmp_path / "clean")

    build(model, tmp_path / "engine")

    names = [
        {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "clean", tmp_path / "engine")
    ]
    assert names[0] == names[1]
    assert {record["path"] for record in json.loads((tmp_path / "engine/manifest.json").read_text())["files"]} == (
        names[1] - {"manifest.json"}
    )
    assert clean["is_reused"] is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
@pytest.mark.parametrize(
    "command",
    ["quantize {model} --quant int4", "quantize org/model --quant fp16", "build {model} --gpu cpu --quant int4"],
)
def test_a_device_that_is_not_there_is_said_before_any_work(model, tmp_path, command):
    line = [*command.format(model=model).split(), "-o", str(tmp_path / "out"), "--device", "cuda"]

    result = CliRunner().invoke(main, line)

    assert result.exit_code == 4
    assert "Error: --device cuda needs an NVIDIA GPU that PyTorch can use; " in result.stderr
    assert "Hint: Use --device cpu" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        ("papers", "papers is there already and is no folder of `trtk build`, so it is left alone."),
        ("papers/draft.txt", "papers/draft.txt is a file, not a folder."),
        ("papers/draft.txt/engine", "papers/draft.txt is a file, not a folder."),
        ("models/tiny", "-o models/tiny would replace the model itself."),
        ("models", "-o models would replace the model itself."),
        (".", "-o '.' names no folder to make."),
    ],
)
def test_a_build_takes_the_place_of_nothing_but_a_build(model, tmp_path, monkeypatch, folder, sentence):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, "models/tiny")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers/draft.txt").write_text("years of work")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))

    line = ["build", "models/tiny", "--gpu", "a4500", "--quant", "int4_rtn", "-o", folder]
    result = CliRunner().invoke(main, line)

    assert (result.exit_code, result.stderr.splitlines()[0]) == (2, f"Error: {sentence}")
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("removed", ["manifest.json", "plan.json"])
def test_a_build_that_lost_a_file_is_built_again(model, tmp_path, removed):
    build(model, tmp_path / "engine")
    (tmp_path / "engine" / removed).unlink()

    assert build(model, tmp_path / "engine")["is_reused"] is False
