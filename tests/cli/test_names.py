"""A wrong name, option or file is said at once, with a next step that works; trtk.toml and TRTK_* are obeyed."""

import json
import shlex

import pytest
from click.testing import CliRunner

from toolkit.cli import main
from toolkit.models.demo import LAYOUT_VERSION

#: What a plan reads of the demo model: its shape.
DEMO_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


@pytest.fixture(autouse=True)
def shell(monkeypatch, tmp_path):
    """An empty working folder, and a cache in which the demo model is already fetched."""
    folder = tmp_path / "cache" / "models" / f"demo-v{LAYOUT_VERSION}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(DEMO_CONFIG))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TRTK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "here"


def trtk(line, **variables):
    return CliRunner(env=variables).invoke(main, shlex.split(line))


def refusal(line, **variables):
    """Return (exit code, error, hint) of a command that prints nothing on stdout."""
    result = trtk(line, **variables)
    assert result.stdout == ""
    error, hint = [said for said in result.stderr.splitlines() if said.startswith(("Error: ", "Hint: "))]
    return result.exit_code, error.removeprefix("Error: "), hint.removeprefix("Hint: ")


def planned(line, **variables):
    """Return the plan of a dry run."""
    result = trtk(f"{line} --dry-run --json", **variables)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def quant_of(line, **variables):
    return planned(line, **variables)["plan"]["conversion"]["recipe"]["name"]


def test_fp8_on_ampere_is_infeasible_and_the_hint_works():
    assert refusal("build demo --gpu a4500 --quant fp8") == (
        3,
        "fp8 needs sm_89 or newer; NVIDIA RTX A4500 is sm_86.",
        "Try --quant int8 or --quant int8_sq on a4500.",
    )
    assert [quant_of(f"build demo --gpu a4500 --quant {name}") for name in ("int8", "int4")] == ["int8", "int4"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "build demo --gpu a450 --quant int4",
            (2, "There is no GPU named 'a450'.", "Did you mean a4500 or a40 or a5500? `trtk gpus` lists them all."),
        ),
        (
            "build demo --gpu a4500 --quant int5",
            (
                *(2, "There is no quantization named 'int5'."),
                "Did you mean int8 or int4 or int8_wo? `trtk quants` lists them all.",
            ),
        ),
        (
            "build demo --gpu a4500 --quant int4 --release 99.01",
            (2, "There is no release named '99.01'.", "Did you mean 26.01 or 25.01? `trtk releases` lists them all."),
        ),
        (
            "biuld demo --gpu cpu --quant int4",
            (2, "There is no command named 'biuld'.", "Did you mean build or bundle? `trtk --help` lists them all."),
        ),
        (
            "build demo --gpu a4500 --quant int4 --group-size 48",
            (3, "--group-size 48 is not one that kernels take: 128, 64, 32.", "Try --group-size 64."),
        ),
        (
            "build demo --gpu a4500 --quant int4 --group-size 128",
            (3, "--group-size 128 does not divide attention.qkv's K of 576.", "Try --group-size 64."),
        ),
        (
            "build demo --gpu a4500 --quant int8 --group-size 64",
            (3, "int8 has no groups, so --group-size 64 cannot be meant.", "Leave --group-size out."),
        ),
        (
            "build demo --gpu a4500 --quant int4 --calib nofile",
            (2, "There is no calibration file nofile.", "--calib takes `self`, a file or hf:NAME of a hub data set."),
        ),
        (
            "build ./nowhere --gpu cpu --quant int4",
            (
                *(2, "There is no folder './nowhere', and it is no hub id either."),
                "MODEL is `demo`, a local Hugging Face folder, or org/name[@revision].",
            ),
        ),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_and_a_next_step(line, said):
    assert refusal(line) == said


def test_the_group_size_that_a_refusal_names_works():
    plan = planned("build demo --gpu a4500 --quant int4 --group-size 64")["plan"]

    assert plan["conversion"]["group_size"] == 64


def test_a_misspelt_option_is_a_usage_error_that_names_the_right_one():
    result = trtk("build demo --gpu cpu --qunat int4")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "--quant" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("line", "variable", "file", "quant"),
    [
        ("build demo --gpu cpu", None, "int8", "int8"),
        ("build demo --gpu cpu", "int8", None, "int8"),
        ("build demo --gpu cpu", "int8", "fp16", "int8"),
        ("build demo --gpu cpu --quant int4", "int8", "fp16", "int4"),
        ("build demo --gpu cpu --quant int4", None, "fp16", "int4"),
    ],
)
def test_an_option_beats_a_variable_which_beats_the_file(shell, line, variable, file, quant):
    if file:
        (shell / "trtk.toml").write_text(f'[build]\nquant = "{file}"\n')

    assert quant_of(line, TRTK_BUILD_QUANT=variable) == quant


def test_every_option_has_the_name_in_the_file_and_in_variables_that_it_has_in_the_shell(shell):
    (shell / "trtk.toml").write_text('[build]\ngpu = "cpu"\nquant = "int4"\noutput = "filed"\nmax-batch-size = 7\n')

    from_file = planned("build demo")
    from_variables = planned("build demo", TRTK_BUILD_OUTPUT="varied", TRTK_BUILD_MAX_BATCH_SIZE="5")

    assert (from_file["folder"], from_file["plan"]["limits"]["max_batch_size"]) == ("filed", 7)
    assert (from_variables["folder"], from_variables["plan"]["limits"]["max_batch_size"]) == ("varied", 5)


def test_a_table_of_another_command_is_left_alone(shell):
    (shell / "trtk.toml").write_text('[quantize]\nquant = "int8"\n[build]\nquant = "int4"\n')

    assert quant_of("build demo --gpu cpu") == "int4"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[build]\nqant = "int8"\n',
            (2, "There is no option of `trtk build` for trtk.toml's [build] named 'qant'.", "Did you mean quant?"),
        ),
        (
            '[biuld]\nquant = "int8"\n',
            (
                *(2, "There is no command for trtk.toml's entry named 'biuld'."),
                "Did you mean build or bundle? `trtk --help` lists them all.",
            ),
        ),
        (
            'build = "int8"\n',
            (2, "trtk.toml's 'build' is no table.", "Write [build] and its options below it."),
        ),
    ],
)
def test_what_nobody_reads_in_the_file_is_an_error(shell, text, said):
    (shell / "trtk.toml").write_text(text)

    assert refusal("build demo --gpu cpu --quant int4") == said


def test_a_file_that_is_not_toml_is_named(shell):
    (shell / "trtk.toml").write_text("[build\n")

    code, error, hint = refusal("gpus")

    assert (code, hint) == (2, "Mend it, or move it away.")
    assert error.startswith("trtk.toml is not TOML: ")


def test_a_name_in_the_file_is_checked_like_one_on_the_command_line(shell):
    (shell / "trtk.toml").write_text('[build]\nquant = "int5"\n')

    assert refusal("build demo --gpu cpu")[:2] == (2, "There is no quantization named 'int5'.")
