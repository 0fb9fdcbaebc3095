"""The rendered repository: equal to the golden files, parsed by Triton's own schema, right where a parser is blind."""

import dataclasses
import os
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from toolkit import repository, templating
from toolkit.errors import PlanInfeasible, UnknownName
from toolkit.specs import RepositorySpec

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
EXAMPLE = ROOT / "model_repository" / "example"
MODELS = {"preprocessing", "tensorrt_llm", "postprocessing", "ensemble", "tensorrt_llm_bls"}
SPEC = RepositorySpec(
    layout="inflight_batcher",
    engine_backend="openvino",
    tokenizer_dir="../../engines/demo-int4",
    engine_dir="../../engines/demo-int4",
    max_batch_size=32,
    max_seq_len=2048,
    max_num_tokens=2048,
    kv_cache_bytes=1 << 30,
)
#: The CPU engine's is looked for where the repository lies.
OWN_ENGINE = {"openvino": {"engine_dir": "../made"}}
SPECS = {
    "openvino": SPEC,
    "tensorrtllm": dataclasses.replace(
        SPEC,
        engine_backend="tensorrtllm",
        tokenizer_dir="/engines/llama/tokenizer",
        engine_dir="/engines/llama",
        dtype="bfloat16",
        max_queue_size=256,
        max_queue_delay_microseconds=100,
        instances={"postprocessing": 4},
        parameters={"tensorrt_llm": {"max_tokens_in_paged_kv_cache": "65536"}},
    ),
}


def configs(backend):
    files = repository.render(SPECS[backend])
    texts = {path.split("/")[0]: text for path, text in files.items() if path.endswith("config.pbtxt")}
    return {model: text_format.Parse(text, model_config_pb2.ModelConfig()) for model, text in texts.items()}


def update(folder, files):
    if os.environ.get("UPDATE_GOLDEN"):
        repository.write(files, folder, is_forced=True)
        (folder / ".trtk-repository.json").unlink()


def files_below(folder):
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("backend", SPECS)
def test_the_configs_equal_the_golden_files(backend):
    rendered = {path: text for path, text in repository.render(SPECS[backend]).items() if path.endswith(".pbtxt")}
    update(GOLDEN / f"inflight_batcher_{backend}", rendered)

    assert rendered == files_below(GOLDEN / f"inflight_batcher_{backend}")


def test_the_example_in_model_repository_is_the_whole_rendering():
    rendered = repository.render(SPEC)
    update(EXAMPLE, rendered)

    assert rendered == files_below(EXAMPLE)


@pytest.mark.parametrize("backend", SPECS)
def test_a_rendered_repository_has_no_problems(backend, tmp_path):
    spec = dataclasses.replace(SPECS[backend], tokenizer_dir="../made", **OWN_ENGINE.get(backend, {}))
    (tmp_path / "made").mkdir()
    for name in ("tokenizer.json", "openvino_model.xml"):
        (tmp_path / "made" / name).write_text("")
    repository.write(repository.render(spec), tmp_path / "repository")

    assert repository.check(tmp_path / "repository") == []
    (tmp_path / "made" / "tokenizer.json").unlink()
    assert {problem.split(":")[0] for problem in repository.check(tmp_path / "repository")} >= {"preprocessing"}


@pytest.mark.parametrize("backend", SPECS)
def test_the_served_python_is_the_templates_python(backend):
    sources = {path.read_text(encoding="utf-8") for path in (templating.directory() / "inflight_batcher").rglob("*.py")}
    python = {text for path, text in repository.render(SPECS[backend]).items() if path.endswith(".py")}

    assert python <= sources
    assert not any("toolkit" in text for text in sources)


@pytest.mark.parametrize("backend", SPECS)
def test_every_model_has_a_version_folder(backend):
    paths = repository.render(SPECS[backend])

    assert {path.split("/")[0] for path in paths if path.split("/")[1] == "1"} == MODELS
    assert ("tensorrt_llm/1/.gitkeep" in paths) == (backend == "tensorrtllm")
    assert paths["ensemble/1/.gitkeep"] == ""


def test_both_engines_have_the_same_tensors_but_for_a_dtype_and_what_nvidias_does_not_say():
    own, nvidia = configs("openvino"), configs("tensorrtllm")
    for model in MODELS:
        for theirs in (*nvidia[model].input, *nvidia[model].output):
            if theirs.name == "prompt_embedding_table":
                assert theirs.data_type == model_config_pb2.TYPE_BF16
                theirs.data_type = model_config_pb2.TYPE_FP16
        ours = [tensor for tensor in own[model].output if tensor.name != "finish_reason"]
        assert list(own[model].input) == list(nvidia[model].input)
        assert ours == list(nvidia[model].output)
        assert (len(ours) < len(own[model].output)) == (model in {"tensorrt_llm", "ensemble", "tensorrt_llm_bls"})


def test_tensors_say_type_dims_and_flags_as_the_c_plus_plus_backend_declares_them():
    inputs = {tensor.name: tensor for tensor in configs("tensorrtllm")["tensorrt_llm"].input}
    expected = {
        "input_ids": "data_type: TYPE_INT32 dims: -1 allow_ragged_batch: true optional: true",
        "input_lengths": "data_type: TYPE_INT32 dims: 1 reshape { }",
        "seed": "data_type: TYPE_UINT64 dims: 1 reshape { } optional: true",
        "stop_words_list": "data_type: TYPE_INT32 dims: 2 dims: -1 allow_ragged_batch: true optional: true",
        "mrope_position_deltas": "data_type: TYPE_INT64 dims: 1 optional: true",
    }
    for name, text in expected.items():
        wanted = text_format.Parse(f'name: "{name}" {text}', model_config_pb2.ModelInput())
        assert inputs[name] == wanted


def test_the_numbers_of_tensors_are_those_of_the_published_tables():
    def theirs(tensors):
        return [tensor for tensor in tensors if tensor.name.lower() != "messages"]

    made = configs("tensorrtllm")
    counts = {model: (len(theirs(config.input)), len(config.output)) for model, config in made.items()}

    assert counts == {
        "preprocessing": (10, 11),
        "tensorrt_llm": (62, 21),
        "postprocessing": (2, 1),
        "ensemble": (36, 19),
        "tensorrt_llm_bls": (42, 19),
    }


def test_the_same_spec_gives_the_same_bytes():
    assert repository.render(SPEC) == repository.render(dataclasses.replace(SPEC))


def test_a_value_with_quotes_arrives_as_it_was_meant():
    spec = dataclasses.replace(SPEC, tokenizer_dir='/a "b"\\c\nd')
    text = repository.render(spec)["preprocessing/config.pbtxt"]
    config = text_format.Parse(text, model_config_pb2.ModelConfig())

    assert config.parameters["tokenizer_dir"].string_value == '/a "b"\\c\nd'


def test_what_is_not_set_is_left_out():
    keys = set(configs("openvino")["tensorrt_llm"].parameters)

    assert "max_tokens_in_paged_kv_cache" not in keys
    assert configs("tensorrtllm")["tensorrt_llm"].parameters["max_tokens_in_paged_kv_cache"].string_value == "65536"


def test_unknown_layouts_and_backends_are_refused_with_the_nearest_name():
    with pytest.raises(UnknownName, match="no repository layout named 'inflight_batch'"):
        repository.render(dataclasses.replace(SPEC, layout="inflight_batch"))
    with pytest.raises(UnknownName, match="no engine backend named 'openvin'") as refused:
        repository.render(dataclasses.replace(SPEC, engine_backend="openvin"))
    assert refused.value.nearest == ["openvino"]


def test_the_cpu_engine_is_decoupled_or_nothing():
    with pytest.raises(PlanInfeasible):
        repository.render(dataclasses.replace(SPEC, is_decoupled=False))
