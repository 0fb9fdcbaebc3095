"""Each thing that a parser does not see is named when a right repository is broken in that one way."""

import shutil

import pytest

from toolkit import repository
from toolkit.specs import RepositorySpec

SPEC = RepositorySpec(
    layout="inflight_batcher",
    engine_backend="tensorrtllm",
    tokenizer_dir="/tokenizer",
    engine_dir="/engine",
    max_batch_size=8,
    max_seq_len=512,
    max_num_tokens=512,
)


@pytest.fixture
def folder(tmp_path):
    repository.write(repository.render(SPEC), tmp_path / "repository")
    return tmp_path / "repository"


@pytest.mark.parametrize(
    ("model", "before", "after", "problem"),
    [
        ("ensemble", 'name: "ensemble"', 'name: "other"', "ensemble: config.pbtxt says name 'other'."),
        (
            "ensemble",
            'key: "QUERY" value: "text_input"',
            'key: "QUERIES" value: "text_input"',
            "ensemble: preprocessing has no input QUERIES.",
        ),
        (
            "ensemble",
            'input_map { key: "REQUEST_OUTPUT_LEN" value: "max_tokens" }',
            "",
            "ensemble: preprocessing needs REQUEST_OUTPUT_LEN.",
        ),
        (
            "ensemble",
            'key: "INPUT_ID" value: "_INPUT_ID" }',
            'key: "INPUT_ID" value: "_END" }',
            "ensemble: _INPUT_ID has 0 producers, and needs one.",
        ),
        (
            "ensemble",
            'output_map { key: "output_ids" value: "_TOKENS_BATCH" }',
            "",
            "ensemble: _TOKENS_BATCH has 0 producers, and needs one.",
        ),
        (
            "ensemble",
            'input_map { key: "seed" value: "seed" }',
            "",
            "ensemble: the input seed feeds nothing.",
        ),
        (
            "ensemble",
            'model_name: "postprocessing"',
            'model_name: "detokenizer"',
            "ensemble: the step detokenizer is not in the repository.",
        ),
        (
            "ensemble",
            "max_batch_size: 8",
            "max_batch_size: 16",
            "ensemble: max_batch_size 16 is above 8 of preprocessing.",
        ),
        (
            "postprocessing",
            'name: "SEQUENCE_LENGTH"\n    data_type: TYPE_INT32',
            'name: "SEQUENCE_LENGTH"\n    data_type: TYPE_INT64',
            "ensemble: _SEQUENCE_LENGTH is TYPE_INT32 [-1] where it is made and TYPE_INT64 [-1] where postprocessing"
            " takes it as SEQUENCE_LENGTH.",
        ),
        (
            "postprocessing",
            "dims: [ -1, -1 ]",
            "dims: [ -1, -1, 3 ]",
            "ensemble: _TOKENS_BATCH is TYPE_INT32 [-1, -1] where it is made and TYPE_INT32 [-1, -1, 3] where"
            " postprocessing takes it as TOKENS_BATCH.",
        ),
        (
            "tensorrt_llm",
            "decoupled: true",
            "decoupled: false",
            "tensorrt_llm and tensorrt_llm_bls differ in decoupled; streaming needs it in both.",
        ),
        (
            "tensorrt_llm",
            'key: "gpt_model_type"',
            'key: "model_type"',
            "tensorrt_llm: the parameter gpt_model_type is missing.",
        ),
        (
            "tensorrt_llm",
            "preferred_batch_size: [ 8 ]",
            "preferred_batch_size: [ 9 ]",
            "tensorrt_llm: preferred_batch_size 9 is above max_batch_size 8.",
        ),
        (
            "preprocessing",
            '"/tokenizer"',
            '"${tokenizer_dir}"',
            "preprocessing: tokenizer_dir is still ${tokenizer_dir}: it is taken for a path.",
        ),
        (
            "preprocessing",
            'name: "END_ID"',
            'name: "PAD_ID"',
            "preprocessing: the input PAD_ID is declared twice.",
        ),
        (
            "tensorrt_llm_bls",
            'key: "tensorrt_llm_model_name" value { string_value: "tensorrt_llm" }',
            'key: "tensorrt_llm_model_name" value { string_value: "llm" }',
            "tensorrt_llm_bls calls llm, which is not in the repository.",
        ),
    ],
)
def test_one_break_is_named(folder, model, before, after, problem):
    config = folder / model / "config.pbtxt"
    text = config.read_text()
    config.write_text(text.replace(before, after, 1))

    assert before in text
    assert problem in repository.check(folder)


def test_a_config_that_does_not_parse_is_named_with_the_place(folder):
    (folder / "ensemble" / "config.pbtxt").write_text("max_batch_size: ${size}")

    assert repository.check(folder)[0].startswith("ensemble: config.pbtxt does not parse: 1:")


def test_a_missing_version_folder_and_a_missing_model_are_named(folder):
    shutil.rmtree(folder / "ensemble" / "1")
    shutil.rmtree(folder / "preprocessing")
    problems = repository.check(folder)

    assert "ensemble: there is no version folder such as ensemble/1." in problems
    assert "ensemble: the step preprocessing is not in the repository." in problems
    assert "tensorrt_llm_bls calls preprocessing, which is not in the repository." in problems


def test_an_empty_folder_is_no_repository(tmp_path):
    assert repository.check(tmp_path) == [f"{tmp_path} has no model: no folder in it holds a config.pbtxt."]


def test_folders_and_dangling_links_where_files_belong_are_no_crash(folder):
    (folder / "ensemble" / "config.pbtxt").unlink()
    (folder / "ensemble" / "config.pbtxt").mkdir()
    (folder / "preprocessing" / "1" / "more.py").symlink_to("nowhere")
    assert repository.check(folder) == ["ensemble: config.pbtxt does not parse: Is a directory."]


@pytest.mark.parametrize("built", ['{"max_batch_size": null}', '{"max_batch_size": "many"}'])
def test_an_engine_whose_numbers_are_none_says_nothing(tmp_path, folder, built):
    config = tmp_path / "config.json"
    config.write_text(f'{{"version": "1.2.1", "build_config": {built}, "pretrained_config": {{"a": 1}}}}')
    text = (folder / "tensorrt_llm" / "config.pbtxt").read_text(encoding="utf-8")
    (folder / "tensorrt_llm" / "config.pbtxt").write_text(text.replace('"/engine"', f'"{tmp_path}"'))
    assert repository.check(folder) == []
