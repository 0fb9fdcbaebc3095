"""What trtk quantize refuses before any work, and what it never takes the place of."""

import json
import shutil

import pytest
from click.testing import CliRunner

from toolkit.cli import main


def quantize(model, *options, quant="int4_rtn"):
    return CliRunner().invoke(main, [str(word) for word in ("quantize", model, "--quant", quant, *options)])


def kept(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def home(llama, tmp_path, monkeypatch):
    """A folder with a model, a file and other people's files; the command runs in it."""
    shutil.copytree(llama[0], tmp_path / "models" / "tiny")
    (tmp_path / "papers").mkdir()
    for name in ("papers/thesis.txt", "notes.txt"):
        (tmp_path / name).write_text("mine", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("papers", "papers is there already and is no checkpoint of `trtk quantize`, so it is left alone."),
        ("models/tiny", "-o models/tiny would replace the model itself."),
        ("models", "-o models would replace the model itself."),
        ("notes.txt", "notes.txt is a file, not a folder."),
        ("notes.txt/made", "notes.txt is a file, not a folder."),
        ("", "-o '.' names no folder to make."),
        ("papers/..", "-o 'papers/..' names no folder to make."),
    ],
)
def test_what_trtk_did_not_make_is_never_replaced(home, target, message):
    before = kept(home)

    done = quantize("models/tiny", "-o", target)

    assert (done.exit_code, message in done.stderr) == (2, True), done.stderr
    assert kept(home) == before


def test_an_empty_folder_and_a_checkpoint_are_written_over(home):
    (home / "made").mkdir()

    for quant in ("int4_rtn", "fp16"):
        done = quantize("models/tiny", "-o", "made", quant=quant)
        assert done.exit_code == 0, done.stderr


@pytest.mark.usefixtures("home")
def test_a_model_that_trtk_made_is_not_replaced_by_what_is_made_from_it():
    assert quantize("models/tiny", "-o", "made", "--format", "hf", quant="fp16").exit_code == 0

    done = quantize("made", "-o", "made")

    assert (done.exit_code, "would replace the model itself" in done.stderr) == (2, True), done.stderr


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-kl", "nan"], "'--max-kl': nan is no finite number"),
        (["--max-ppl-increase", "inf"], "'--max-ppl-increase': inf is no finite number"),
        (["--target-bits", "nan"], "'--target-bits': nan is no finite number"),
        (["--seed", str(2**64)], "'--seed': 18446744073709551616 is not in the range"),
    ],
)
def test_a_number_that_is_none_is_refused_by_its_option(options, message):
    done = quantize("models/tiny", "-o", "made", *options, quant="auto")

    assert (done.exit_code, message in done.stderr) == (2, True), done.stderr


def test_a_file_calibrates_a_model_whose_context_is_shorter_than_the_default_piece(home):
    (home / "text.txt").write_text("Numbers such as 1, 22 and 333 are written in digits.\n" * 200, encoding="utf-8")

    done = quantize("models/tiny", "--calib", "text.txt", "--calib-samples", 1, "-o", "made", quant="fp8")

    assert done.exit_code == 0, done.stderr


def test_a_tokenizer_that_is_none_is_named(home):
    (home / "models/tiny/tokenizer.json").write_text("{}", encoding="utf-8")

    done = quantize("models/tiny", "-o", "made", quant="fp8")

    assert (done.exit_code, "tokenizer.json is no tokenizer: " in done.stderr) == (5, True), done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_key_value_heads": "two"}, "config.json's 'num_key_value_heads' is 'two', not a number of things."),
        ({"rms_norm_eps": "x"}, "config.json has a value of another kind than its field takes: "),
        ({"quantization_config": 5}, "quantization_config is 5, not an object."),
        ({"quantization_config": {"quant_method": "gptq", "bits": "x"}}, "of another kind than its field takes: "),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(home, changes, message):
    path = home / "models/tiny/config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    done = quantize("models/tiny", "-o", "made")

    assert (done.exit_code, message in done.stderr) == (3, True), done.stderr


def test_a_shard_that_is_a_broken_link_is_named(home):
    path = home / "models/tiny/model.safetensors"
    path.unlink()
    path.symlink_to("nowhere")

    done = quantize("models/tiny", "-o", "made")

    assert (done.exit_code, "model.safetensors" in done.stderr) == (5, True), done.stderr
