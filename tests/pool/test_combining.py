"""Several repositories as one: renamed, wired to themselves, and right by every check."""

import dataclasses
import json

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from toolkit import repository
from toolkit.errors import UsageError
from toolkit.pool import combining
from toolkit.pool.combining import Source
from toolkit.specs import RepositorySpec

SPEC = RepositorySpec(
    layout="inflight_batcher",
    engine_backend="openvino",
    tokenizer_dir="../tokenizer",
    engine_dir="../engine",
    max_batch_size=8,
    max_seq_len=512,
    max_num_tokens=512,
    kv_cache_bytes=1 << 30,
)
LLM_API = dataclasses.replace(SPEC, layout="llmapi", engine_backend="llmapi", kv_cache_bytes=0)
NVIDIA = dataclasses.replace(SPEC, engine_backend="tensorrtllm", kv_cache_bytes=0)


def source(folder, name, spec, kv_tokens=4096):
    built = folder / name
    for part in ("tokenizer", "engine"):
        (built / part).mkdir(parents=True)
    (built / "tokenizer/tokenizer.json").write_text("{}")
    (built / "engine/openvino_model.xml").write_text("")
    repository.write(repository.render(spec), built / "model_repository")
    return Source(name=name, repository=built / "model_repository", kv_tokens=kv_tokens)


def configs(files):
    return {
        path.split("/")[0]: text_format.Parse(text, model_config_pb2.ModelConfig())
        for path, text in files.items()
        if path.endswith("config.pbtxt")
    }


def values(config):
    return {key: parameter.string_value for key, parameter in config.parameters.items()}


def test_two_cpu_models_become_ten_that_pass_every_check(tmp_path):
    sources = [source(tmp_path, "a", SPEC), source(tmp_path, "b", SPEC, kv_tokens=64)]
    files = combining.combined(sources)
    repository.write(files, tmp_path / "pool")

    made = configs(files)
    assert repository.check(tmp_path / "pool") == []
    assert sorted(made) == sorted(
        f"{name}{part}" for name in "ab" for part in ("", ".bls", ".postprocessing", ".preprocessing", ".tensorrt_llm")
    )
    assert {name: config.name for name, config in made.items()} == {name: name for name in made}
    assert [step.model_name for step in made["a"].ensemble_scheduling.step] == [
        "a.preprocessing",
        "a.tensorrt_llm",
        "a.postprocessing",
    ]
    called = values(made["b.bls"])
    assert (
        called["preprocessing_model_name"],
        called["tensorrt_llm_model_name"],
        called["postprocessing_model_name"],
    ) == ("b.preprocessing", "b.tensorrt_llm", "b.postprocessing")
    assert values(made["b.postprocessing"])["stops_model"] == "b.tensorrt_llm"


def test_paths_start_at_the_root_and_the_cache_has_its_number_of_tokens(tmp_path):
    engine = values(configs(combining.combined([source(tmp_path, "a", SPEC, kv_tokens=64)]))["a.tensorrt_llm"])

    assert engine["gpt_model_path"] == str(tmp_path / "a/engine")
    assert engine["tokenizer_dir"] == str(tmp_path / "a/tokenizer")
    assert engine["max_tokens_in_paged_kv_cache"] == "64"
    assert "kv_cache_bytes" not in engine


def test_nothing_but_names_paths_and_the_cache_changes(tmp_path):
    one = source(tmp_path, "a", SPEC)
    before = text_format.Parse(
        (one.repository / "tensorrt_llm/config.pbtxt").read_text(), model_config_pb2.ModelConfig()
    )
    after = configs(combining.combined([one]))["a.tensorrt_llm"]
    for config in (before, after):
        config.name = ""
        for key in ("gpt_model_path", "tokenizer_dir", "max_tokens_in_paged_kv_cache", "kv_cache_bytes"):
            config.parameters.pop(key, None)

    assert after == before


def test_an_engine_for_a_gpu_gets_tokens_and_not_a_share_of_what_others_left(tmp_path):
    files = combining.combined([source(tmp_path, "a", NVIDIA, kv_tokens=4096)])
    repository.write(files, tmp_path / "pool")
    engine = values(configs(files)["a.tensorrt_llm"])

    assert (engine["max_tokens_in_paged_kv_cache"], engine["kv_cache_free_gpu_mem_fraction"]) == ("4096", "0.95")
    assert [said for said in repository.check(tmp_path / "pool") if "engine" not in said] == []


def test_the_llm_api_is_told_in_its_yaml(tmp_path):
    import yaml

    files = combining.combined([source(tmp_path, "a", LLM_API, kv_tokens=512)])
    settings = yaml.safe_load(files["a/1/model.yaml"])

    assert settings["model"] == str(tmp_path / "a/engine")
    assert settings["kv_cache_config"] == {"max_tokens": 512, "free_gpu_memory_fraction": 0.95}
    assert settings == json.loads(files["a/1/model.yaml"])
    assert configs(files)["a"].name == "a"


def test_triton_is_told_of_the_ensemble_and_of_what_is_none_of_its_steps(tmp_path):
    one = source(tmp_path, "a", SPEC)

    assert combining.loaded_of(one) == ("a", "a.bls")
    assert set(combining.parts_of(one)) == set(configs(combining.combined([one])))


def test_a_caller_that_cannot_be_told_whom_to_call_is_left_out(tmp_path):
    one = source(tmp_path, "a", SPEC)
    model = one.repository / "tensorrt_llm_bls/1/model.py"
    model.write_text(model.read_text().replace("preprocessing_model_name", "something_else"))

    assert combining.loaded_of(one) == ("a",)
    assert "a.bls/config.pbtxt" not in combining.combined([one])


def test_two_models_of_one_name_are_refused(tmp_path):
    one = source(tmp_path, "a", SPEC)
    clash = dataclasses.replace(source(tmp_path, "a.bls", LLM_API), name="a.bls")

    with pytest.raises(UsageError, match="Two models would be called 'a'"):
        combining.need_distinct([one, one])
    with pytest.raises(UsageError, match=r"Two models would be called 'a\.bls'"):
        combining.need_distinct([one, clash])


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".a", "a b"])
def test_a_name_that_could_be_a_path_is_refused(tmp_path, name):
    one = dataclasses.replace(source(tmp_path, "a", SPEC), name=name)

    with pytest.raises(UsageError, match="is no name for a model"):
        combining.need_distinct([one])


def test_a_repository_without_an_ensemble_is_refused(tmp_path):
    (tmp_path / "a/model_repository/other").mkdir(parents=True)
    (tmp_path / "a/model_repository/other/config.pbtxt").write_text("")

    with pytest.raises(UsageError, match="has no model 'ensemble'"):
        combining.need_distinct([Source(name="a", repository=tmp_path / "a/model_repository", kv_tokens=1)])
