"""Repositories that trtk did not write: NVIDIA's templates, right as they are, and wrong in the ways they go wrong."""

import dataclasses
import json

import pytest

from tests.repository import stock
from toolkit import releases, repository
from toolkit.repository import EngineFacts, Surroundings

AROUND = Surroundings(tensorrt_llm="1.2.1", api=releases.llm_api_of(releases.get("26.07")))


def results(folder, around=AROUND):
    return {result.name: result for result in repository.examine(folder, around)}


def problems(folder, around=AROUND):
    return {name: list(result.problems) for name, result in results(folder, around).items() if result.problems}


def engine_folder(folder, *, version="1.2.1", tp=1, **built):
    """Write what trtllm-build leaves beside an engine."""
    folder.mkdir()
    sizes = {"max_batch_size": 64, "max_beam_width": 1, "plugin_config": {"use_paged_context_fmha": True}}
    config = {
        "version": version,
        "pretrained_config": {"mapping": {"tp_size": tp, "pp_size": 1}, "logits_dtype": "float32"},
        "build_config": {**sizes, **built},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    for rank in range(tp):
        (folder / f"rank{rank}.engine").write_text("")
    return folder


def mounted(tmp_path, **engine):
    """Return surroundings where the engine that the configurations name lies on this machine."""
    made = engine_folder(tmp_path / "llama", **engine)
    return dataclasses.replace(AROUND, mounts=((str(made), "/engines/llama"),))


def test_a_filled_template_is_right_and_says_what_it_could_not_see(tmp_path):
    folder = stock.write(tmp_path / "repository")

    assert problems(folder) == {}
    found = results(folder)
    assert found["paths"].left_out.startswith("/engines/llama: not on this machine")
    assert "no config.json" in found["sizes"].left_out
    assert problems(folder, mounted(tmp_path)) == {}


def test_every_placeholder_is_named_with_what_the_backend_makes_of_it(tmp_path):
    folder = stock.write(tmp_path / "repository", stock.FILLED, template=True)
    found = problems(folder)

    assert found.keys() == {"keys"}
    left = {sentence.split(" is still ")[0].split(": ")[1] for sentence in found["keys"]}
    assert left == set(stock.PARAMETERS) - stock.FILLED.keys()
    expected = {
        "tensorrt_llm: max_tokens_in_paged_kv_cache is still ${max_tokens_in_paged_kv_cache}: the model takes its"
        " default, what the free memory holds.",
        "tensorrt_llm: encoder_model_path is still ${encoder_model_path}: it is taken for a path.",
        "tensorrt_llm: lookahead_window_size is still ${lookahead_window_size}: the model goes without it.",
    }
    assert expected <= set(found["keys"])


def test_a_placeholder_outside_of_quotes_does_not_parse(tmp_path):
    folder = stock.write(tmp_path / "repository", batch="${triton_max_batch_size}")

    assert {sentence.split(":")[0] for sentence in problems(folder)["parses"]} == {
        "preprocessing",
        "tensorrt_llm",
        "postprocessing",
        "ensemble",
        "tensorrt_llm_bls",
    }


@pytest.mark.parametrize(
    ("check", "changes", "sentence"),
    [
        (
            "keys",
            {"kv_cache_free_gpu_memory_fraction": "0.9"},
            "tensorrt_llm: trtk knows no parameter kv_cache_free_gpu_memory_fraction of TensorRT-LLM 1.2.1."
            " Did you mean kv_cache_free_gpu_mem_fraction?",
        ),
        (
            "keys",
            {"worker_path": "/opt/tritonserver/worker"},
            "tensorrt_llm: TensorRT-LLM 1.2.1 has no parameter worker_path: it went with 0.10.",
        ),
        (
            "values",
            {"batch_scheduler_policy": "MAX_UTILIZATION"},
            "tensorrt_llm: batch_scheduler_policy cannot be 'MAX_UTILIZATION': it takes guaranteed_no_evict,"
            " max_utilization.",
        ),
        (
            "values",
            {"kv_cache_free_gpu_mem_fraction": "90"},
            "tensorrt_llm: kv_cache_free_gpu_mem_fraction cannot be '90': it takes a number from 0 to 1.",
        ),
        (
            "values",
            {"kv_cache_host_memory_bytes": "-1"},
            "tensorrt_llm: kv_cache_host_memory_bytes cannot be '-1': it takes a whole number from 0.",
        ),
        (
            "values",
            {"guided_decoding_backend": "xgrammar"},
            "tensorrt_llm: guided_decoding_backend needs xgrammar_tokenizer_info_path.",
        ),
        (
            "values",
            {"lookahead_window_size": "7"},
            "tensorrt_llm: lookahead_window_size without lookahead_ngram_size, lookahead_verification_set_size: the"
            " three go together.",
        ),
        ("devices", {"gpu_device_ids": "0;1"}, "tensorrt_llm: gpu_device_ids has 2 sets, and instance_group has 1."),
        ("devices", {"gpu_device_ids": "0,0"}, "tensorrt_llm: GPU 0 is in gpu_device_ids 2 times."),
        (
            "devices",
            {"participant_ids": "0"},
            "tensorrt_llm: participant_ids has rank 0, which is the orchestrator's.",
        ),
        (
            "sizes",
            {"decoding_mode": "beam_search"},
            "tensorrt_llm: decoding_mode beam_search has no beams: max_beam_width is 1.",
        ),
        (
            "paths",
            {"gpt_model_path": "engines/llama"},
            "tensorrt_llm: gpt_model_path is engines/llama; NVIDIA's backend takes absolute paths alone.",
        ),
    ],
)
def test_one_wrong_parameter_is_one_problem_of_one_check(tmp_path, check, changes, sentence):
    folder = stock.write(tmp_path / "repository", {**stock.CLEAN, **changes})
    around = dataclasses.replace(AROUND, engine=EngineFacts(tensorrt_llm="1.2.1", max_batch_size=64))

    found = problems(folder, around)
    assert sentence in found.pop(check)
    assert all(changes.keys() & set(" ".join(others).split()) for others in found.values())


@pytest.mark.parametrize("key", ["gpt_model_type", "tokenizer_dir", "xgrammar_tokenizer_info_path"])
def test_what_the_c_plus_plus_backend_reads_unasked_must_be_there(tmp_path, key):
    values = {name: value for name, value in stock.CLEAN.items() if name != key}

    assert problems(stock.write(tmp_path / "repository", values)) == {
        "keys": [f"tensorrt_llm: the parameter {key} is missing."]
    }


@pytest.mark.parametrize(
    ("engine", "values", "sentence"),
    [
        ({"max_batch_size": 32}, {}, "tensorrt_llm: max_batch_size 64 is above the engine's 32."),
        ({}, {"max_beam_width": "4"}, "tensorrt_llm: max_beam_width 4 is above the engine's 1."),
        (
            {"version": "1.2.0"},
            {},
            "tensorrt_llm: its engine is of TensorRT-LLM 1.2.0, and the server has 1.2.1.",
        ),
        (
            {"plugin_config": {"use_paged_context_fmha": False}},
            {},
            "tensorrt_llm: enable_kv_cache_reuse needs an engine with use_paged_context_fmha, and this one has none.",
        ),
        (
            {},
            {"decoding_mode": "medusa"},
            "tensorrt_llm: decoding_mode medusa needs an engine built with medusa.",
        ),
        (
            {"tp": 2},
            {"gpu_device_ids": "0"},
            "tensorrt_llm: gpu_device_ids has a set of 1: 0; the engine has 2 ranks.",
        ),
    ],
)
def test_the_engine_beside_it_is_what_the_configuration_must_fit(tmp_path, engine, values, sentence):
    folder = stock.write(tmp_path / "repository", {**stock.CLEAN, **values})

    found = [one for several in problems(folder, mounted(tmp_path, **engine)).values() for one in several]
    assert found == [sentence]


def test_a_mode_of_the_engine_is_read_as_trtllm_build_writes_it(tmp_path):
    sizes = ("lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size")
    values = {**stock.CLEAN, "decoding_mode": "lookahead", **dict.fromkeys(sizes, "3")}
    folder = stock.write(tmp_path / "repository", values)

    assert problems(folder, mounted(tmp_path, speculative_decoding_mode=8)) == {}


def test_paths_are_looked_up_where_they_are_mounted(tmp_path):
    folder = stock.write(tmp_path / "repository")
    around = mounted(tmp_path, tp=2)
    assert problems(folder, around) == {}

    (tmp_path / "llama" / "rank1.engine").unlink()
    (tmp_path / "llama" / "tokenizer.json").unlink()
    here = tmp_path / "llama"
    nothing = f"tokenizer_dir is /engines/llama ({here} here), which has no tokenizer.json"
    *tokenizers, rank = problems(folder, around)["paths"]
    assert [sentence.split(" or ")[0] for sentence in tokenizers] == [
        f"{model}: {nothing}" for model in ("postprocessing", "preprocessing", "tensorrt_llm")
    ]
    assert rank == f"tensorrt_llm: {here} has no rank1.engine."
    elsewhere = dataclasses.replace(AROUND, mounts=((str(tmp_path), "/somewhere"),))
    assert (
        "tensorrt_llm: gpt_model_path is /engines/llama, which is below no --mount."
        in (problems(folder, elsewhere)["paths"])
    )


def test_nvidia_s_own_caller_expects_grpc_on_its_port(tmp_path):
    folder = stock.write(tmp_path / "repository")

    assert problems(folder, dataclasses.replace(AROUND, ports={"--grpc-port": 8001})) == {}
    assert problems(folder, dataclasses.replace(AROUND, ports={"--grpc-port": 9001})) == {
        "ports": ["tensorrt_llm_bls asks localhost:8001 for configurations, and gRPC is on 9001."]
    }
    twice = dataclasses.replace(AROUND, ports={"--grpc-port": 8001, "--http-port": 8001})
    assert problems(folder, twice) == {
        "ports": ["--grpc-port, --http-port are all 8001; each needs a port of its own."]
    }


def test_nvidia_s_model_around_the_llm_api_is_right_as_it_should_be(tmp_path):
    folder = stock.write_llm_api(tmp_path / "repository")

    assert problems(folder) == {}


@pytest.mark.parametrize(
    ("config", "settings", "check", "sentence"),
    [
        (
            ("decoupled: true", "decoupled: false"),
            ("", ""),
            "decoupling",
            "tensorrt_llm: config.pbtxt says decoupled false and model.yaml true; with --disable-auto-complete-config"
            " Triton believes config.pbtxt alone.",
        ),
        (
            ("max_batch_size: 0", "max_batch_size: 8"),
            ("max_batch_size: 0", "max_batch_size: 8"),
            "decoupling",
            "tensorrt_llm: max_batch_size is 8; NVIDIA's model around the LLM API takes no batches: say 0.",
        ),
        (
            ("", ""),
            ("max_batch_size: 0", "max_batch_size: 8"),
            "decoupling",
            "tensorrt_llm: config.pbtxt says max_batch_size 0 and model.yaml 8.",
        ),
        (
            ("", ""),
            ("free_gpu_memory_fraction", "free_gpu_mem_fraction"),
            "keys",
            "tensorrt_llm: trtk knows no key of model.yaml kv_cache_config.free_gpu_mem_fraction of the LLM API 1.2."
            " Did you mean kv_cache_config.free_gpu_memory_fraction?",
        ),
        (
            ("", ""),
            ("0.9", "90"),
            "values",
            "tensorrt_llm: kv_cache_config.free_gpu_memory_fraction of model.yaml cannot be 90: it takes a fraction.",
        ),
        (
            ("", ""),
            ("triton_config", "triton"),
            "decoupling",
            "tensorrt_llm: model.yaml has no triton_config, which model.py reads first.",
        ),
        (("", ""), ("model: Tiny", "model: [Tiny"), "parses", "tensorrt_llm: model.yaml does not parse"),
    ],
)
def test_one_break_of_the_llm_api_s_model_is_named(tmp_path, config, settings, check, sentence):
    texts = stock.LLM_API_CONFIG.replace(*config, 1), stock.LLM_API_YAML.replace(*settings, 1)
    folder = stock.write_llm_api(tmp_path / "repository", *texts)

    assert any(found.startswith(sentence) for found in problems(folder)[check])
