"""Every parameter of every release is a row of a table; what a release does not have cannot be set."""

import dataclasses

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tests.machine.test_probing import PARAMETERS
from toolkit import releases, repository
from toolkit.errors import PlanInfeasible, UnknownName, UsageError
from toolkit.repository import parameters
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
ROLES = ("tensorrt_llm", "openvino", "preprocessing", "postprocessing", "tensorrt_llm_bls")


def configs(**changes):
    files = repository.render(dataclasses.replace(SPEC, **changes))
    texts = {path.split("/")[0]: text for path, text in files.items() if path.endswith("config.pbtxt")}
    return {model: text_format.Parse(text, model_config_pb2.ModelConfig()) for model, text in texts.items()}


def values(config):
    return {key: parameter.string_value for key, parameter in config.parameters.items()}


def test_the_table_has_every_key_of_the_backend_s_own_template():
    assert set(PARAMETERS) - parameters.in_release("tensorrt_llm", "1.2.1").keys() == set()


@pytest.mark.parametrize("role", ROLES)
def test_every_row_says_what_it_takes_and_its_default_is_legal(role):
    for key, one in parameters.table(role).items():
        assert one.meaning, key
        assert (one.kind == "choice") == bool(one.choices), key
        if one.default and one.kind in {"integer", "fraction", "boolean"} and one.default[0].isdigit():
            assert one.is_legal(one.default), key


@pytest.mark.parametrize(
    ("version", "new", "gone"),
    [
        ("0.7.0", {"enable_kv_cache_reuse", "max_attention_window_size"}, {"max_kv_cache_length", "decoding_mode"}),
        ("0.9.0", {"decoding_mode", "worker_path", "medusa_choices"}, {"executor_worker_path", "eagle_choices"}),
        ("0.10.0", {"executor_worker_path", "sink_token_length"}, {"worker_path", "encoder_model_path"}),
        ("0.16.0", {"eagle_choices", "cuda_graph_mode"}, {"guided_decoding_backend", "num_nodes"}),
        ("0.20.0", {"guided_decoding_backend", "lookahead_window_size", "num_nodes"}, {"worker_path"}),
        ("1.2.1", {"guided_decoding_backend", "lora_prefetch_dir"}, {"max_num_sequences"}),
    ],
)
def test_releases_differ_as_the_backend_s_history_says(version, new, gone):
    known = parameters.in_release("tensorrt_llm", version).keys()

    assert new <= known
    assert not gone & known


@pytest.mark.parametrize(
    ("key", "legal", "illegal"),
    [
        ("max_beam_width", ["1", "16"], ["0", "-1", "1.5", "two", "", "²"]),
        ("kv_cache_free_gpu_mem_fraction", ["0", "0.9", "1", "1.0", ".5"], ["1.1", "-0.1", "90%", "nan", "1e-3"]),
        ("enable_kv_cache_reuse", ["true", "True", "TRUE", "1", "false", "0"], ["yes", "on", "tRue", ""]),
        ("batch_scheduler_policy", ["max_utilization"], ["MAX_UTILIZATION", ""]),
        ("max_attention_window_size", ["4096", "512,512,4096"], ["0", "512,0", "512;4096", "a"]),
        ("gpu_device_ids", ["0", "0,1;2,3"], ["0,1;", "a", "0 1", ";"]),
        ("eagle_choices", ["{0}", "{0},{0,0},{0,1}"], ["0", "{0}{1}", "{}"]),
    ],
)
def test_a_value_is_of_its_kind(key, legal, illegal):
    one = parameters.table("tensorrt_llm")[key]

    assert [value for value in legal if not one.is_legal(value)] == []
    assert [value for value in illegal if one.is_legal(value)] == []


def test_what_is_set_is_in_the_model_that_it_is_set_for_and_nowhere_else():
    asked = {
        "tensorrt_llm": {"kv_cache_host_memory_bytes": "1024", "kv_cache_free_gpu_mem_fraction": "0.5"},
        "preprocessing": {"add_special_tokens": "false"},
        "tensorrt_llm_bls": {"max_requests_in_flight": "7"},
    }
    plain, made = configs(), configs(parameters=asked)

    for model, config in made.items():
        expected = values(plain[model]) | asked.get(model, {})
        assert values(config) == expected


def test_keys_that_the_c_plus_plus_backend_reads_unasked_are_there_in_releases_that_have_them():
    needed = {"tokenizer_dir", "xgrammar_tokenizer_info_path", "guided_decoding_backend"}

    assert needed <= values(configs(tensorrt_llm="0.20.0")["tensorrt_llm"]).keys()
    assert not needed & values(configs(tensorrt_llm="0.18.2")["tensorrt_llm"]).keys()


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"tensorrt_lm": {"max_beam_width": "1"}}, UnknownName, "no model of this repository with parameters"),
        ({"tensorrt_llm": {"max_baem_width": "1"}}, UnknownName, "no parameter of tensorrt_llm named 'max_baem_width'"),
        ({"tensorrt_llm": {"max_beam_width": "0"}}, UsageError, "max_beam_width cannot be '0'"),
        ({"tensorrt_llm": {"gpt_model_path": "/e"}}, UsageError, "is decided by --engine-dir"),
        ({"tensorrt_llm": {"worker_path": "/w"}}, PlanInfeasible, "not in TensorRT-LLM 1.2.1: it went with 0.10"),
        ({"preprocessing": {"stops_model": "x"}}, UnknownName, "no parameter of preprocessing named 'stops_model'"),
    ],
)
def test_what_cannot_be_set_is_refused_in_a_sentence(asked, error, message):
    with pytest.raises(error, match=message):
        configs(parameters=asked)


def test_the_cpu_engine_takes_what_it_has_and_names_what_it_has_not():
    cpu = {"engine_backend": "openvino", "kv_cache_bytes": 1 << 30}
    asked = {"tensorrt_llm": {"num_threads": "2", "stream_interval": "4", "enable_kv_cache_reuse": "false"}}
    asked["tensorrt_llm"]["dynamic_quantization_group_size"] = "0"

    assert asked["tensorrt_llm"].items() <= values(configs(**cpu, parameters=asked)["tensorrt_llm"]).items()
    with pytest.raises(UnknownName, match="named 'kv_cache_host_memory_bytes'"):
        configs(**cpu, parameters={"tensorrt_llm": {"kv_cache_host_memory_bytes": "1"}})
    with pytest.raises(PlanInfeasible, match="would take the cores from each other"):
        configs(**cpu, instances={"tensorrt_llm": 2})
    with pytest.raises(PlanInfeasible, match="no draft model"):
        configs(**cpu, draft_engine_dir="/draft")


def test_instances_have_gpus_of_their_own():
    made = configs(instances={"tensorrt_llm": 2, "preprocessing": 5}, ranks=2)

    assert values(made["tensorrt_llm"])["gpu_device_ids"] == "0,1;2,3"
    assert [group.count for group in made["tensorrt_llm"].instance_group] == [2]
    assert [group.count for group in made["preprocessing"].instance_group] == [5]
    assert "gpu_device_ids" not in values(configs()["tensorrt_llm"])


def test_a_draft_model_is_a_second_engine_that_only_its_caller_names():
    made = configs(
        draft_engine_dir="/draft",
        parameters={"tensorrt_llm": {"max_tokens_in_paged_kv_cache": "4096"}},
    )
    target, draft = made["tensorrt_llm"], made["tensorrt_llm_draft"]

    assert values(draft) == values(target) | {"gpt_model_path": "/draft"}
    assert list(draft.input) == list(target.input)
    assert values(made["tensorrt_llm_bls"])["tensorrt_llm_draft_model_name"] == "tensorrt_llm_draft"
    assert [step.model_name for step in made["ensemble"].ensemble_scheduling.step] == [
        "preprocessing",
        "tensorrt_llm",
        "postprocessing",
    ]


def test_every_release_with_the_engine_flow_gives_a_repository_of_keys_that_it_knows():
    for release in filter(releases.build_tool_of, releases.catalogue()):
        spec = dataclasses.replace(SPEC, tensorrt_llm=release.tensorrt_llm)
        around = repository.Surroundings(tensorrt_llm=release.tensorrt_llm)
        repository.need_right(repository.render(spec), around)
