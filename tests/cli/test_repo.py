"""`trtk repo`: the repository alone, with other settings, never over an edit; and what --check says of any other."""

import json
import shutil
import socket

import pytest
import yaml
from click.testing import CliRunner
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tests.conftest import save_llama
from tests.repository import stock
from toolkit.cli import main

ENGINE_KEY = "sm86-trtllm1.2.1-trt10.14.1.48"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny Llama whose head size TensorRT-LLM's attention has."""
    folder = tmp_path_factory.mktemp("tiny") / "hf"
    save_llama(folder, hidden_size=256, num_attention_heads=4, num_key_value_heads=2)
    return folder


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    """A bundle of the engine flow, built to take draft tokens."""
    folder = tmp_path_factory.mktemp("engines") / "llama"
    options = ["--quant", "fp16", "--speculative", "draft_tokens_external"]
    document("build", model, "--gpu", "a4500", *options, "-o", folder)
    return folder


@pytest.fixture(scope="module")
def llm_api(model, tmp_path_factory):
    """A build for the LLM API."""
    folder = tmp_path_factory.mktemp("engines") / "llama-api"
    document("build", model, "--gpu", "a4500", "--quant", "fp16", "--flow", "llmapi", "-o", folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def document(*words):
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def config_of(folder, name="tensorrt_llm"):
    return text_format.Parse((folder / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def values_of(folder, name="tensorrt_llm"):
    return {key: parameter.string_value for key, parameter in config_of(folder, name).parameters.items()}


def texts_in(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def compiled(folder, copy):
    """Copy a bundle and put into it what its compiler would leave."""
    shutil.copytree(folder, copy)
    engine = copy / "engine" / ENGINE_KEY
    engine.mkdir(parents=True)
    (engine / "rank0.engine").write_text("")
    sizes = {"max_batch_size": 256, "max_beam_width": 1, "speculative_decoding_mode": 2}
    pretrained = {"mapping": {"tp_size": 1, "pp_size": 1}, "logits_dtype": "float32"}
    config = {"version": "1.2.1", "pretrained_config": pretrained, "build_config": sizes}
    (engine / "config.json").write_text(json.dumps(config))
    return engine


def test_without_settings_it_is_the_build_s_own_but_for_where_things_lie(bundle, here):
    found = document("repo", bundle, "-o", here / "made" / "llama")
    built, made = texts_in(bundle / "model_repository"), texts_in(here / "made" / "llama")
    del built[".trtk-repository.json"], made[".trtk-repository.json"]

    assert found["files"] == sorted(made)
    assert (found["release"], found["ranks"], found["is_orchestrated"]) == ("26.07", 1, False)
    assert built.keys() == made.keys()
    changed = {path for path in built if built[path] != made[path]}
    assert changed == {"preprocessing/config.pbtxt", "postprocessing/config.pbtxt"}
    tokenizer = values_of(here / "made" / "llama", "preprocessing")["tokenizer_dir"]
    assert (here / "made" / "llama" / tokenizer).resolve() == bundle / "tokenizer"
    again = document("repo", bundle, "-o", here / "made" / "again")
    assert texts_in(here / "made" / "again") == texts_in(here / "made" / "llama")
    assert again["folder"] == str(here / "made" / "again")


@pytest.mark.usefixtures("here")
def test_the_folder_without_o_is_below_model_repository(bundle):
    assert document("repo", bundle)["folder"] == "model_repository/llama"
    assert document("repo", "--check", "model_repository/llama")["is_right"]


OPTIONS = [
    *("--kv-cache-fraction", "0.5", "--kv-cache-host-memory", "8g", "--no-kv-cache-reuse", "--no-chunked-context"),
    *("--scheduler-policy", "max_utilization", "--attention-window", "512,1024", "--decoding-mode", "top_p"),
    *("--lora-gpu-fraction", "0.1", "--lora-host-memory", "2g", "--kv-cache-tokens", "4096"),
    *("--set", "tensorrt_llm.sink_token_length=4", "--set", "preprocessing.add_special_tokens=false"),
]
SET = {
    "kv_cache_free_gpu_mem_fraction": "0.5",
    "kv_cache_host_memory_bytes": str(8 << 30),
    "enable_kv_cache_reuse": "false",
    "enable_chunked_context": "false",
    "batch_scheduler_policy": "max_utilization",
    "max_attention_window_size": "512,1024",
    "decoding_mode": "top_p",
    "lora_cache_gpu_memory_fraction": "0.1",
    "lora_cache_host_memory_bytes": str(2 << 30),
    "max_tokens_in_paged_kv_cache": "4096",
    "sink_token_length": "4",
}


def test_every_option_is_a_parameter_of_the_engine_at_build_and_later(bundle, model, here):
    queue = ["--max-queue-size", "7", "--max-queue-delay-us", "300", "--instances", "tensorrt_llm_bls=3"]
    document("repo", bundle, *OPTIONS, *queue, "-o", "later")
    document("build", model, "--gpu", "a4500", "--quant", "fp16", *OPTIONS, *queue, "-o", "built")

    before = values_of(bundle / "model_repository")
    for folder in (here / "later", here / "built" / "model_repository"):
        assert values_of(folder) == before | SET
        assert values_of(folder, "preprocessing")["add_special_tokens"] == "false"
        batching = config_of(folder).dynamic_batching
        assert batching.default_queue_policy.max_queue_size == 7
        assert batching.max_queue_delay_microseconds == 300
        assert [group.count for group in config_of(folder, "tensorrt_llm_bls").instance_group] == [3]
    # What the build was told is what its repository says later, too, with what is said then over it.
    document("repo", "built", "--kv-cache-fraction", "0.7", "-o", "after")
    assert values_of(here / "after") == before | SET | {"kv_cache_free_gpu_mem_fraction": "0.7"}


def test_a_project_s_file_sets_them_too(bundle, here):
    (here / "trtk.toml").write_text(
        '[repo]\nset = ["tensorrt_llm.max_beam_width=1", "tensorrt_llm.stats_check_period_ms=5"]\nmax-queue-size = 9\n'
        'kv-cache-fraction = 0.4\ninstances = ["preprocessing=2"]\n'
    )
    document("repo", bundle, "--kv-cache-fraction", "0.6", "-o", "made")

    found = values_of(here / "made")
    assert (found["stats_check_period_ms"], found["kv_cache_free_gpu_mem_fraction"]) == ("5", "0.6")
    assert config_of(here / "made", "preprocessing").dynamic_batching.default_queue_policy.max_queue_size == 9
    assert [group.count for group in config_of(here / "made", "preprocessing").instance_group] == [2]


def test_the_same_build_with_other_settings_takes_the_checkpoint_as_it_is(model, here, monkeypatch):
    monkeypatch.setenv("TRTK_BUILD_CACHE", str(here / "cache"))
    options = ["build", model, "--gpu", "a4500", "--quant", "fp16", "-o", "e"]
    first = document(*options)
    assert document(*options)["is_reused"]
    again = document(*options, "--max-queue-size", "3")

    assert (again["is_reused"], again["reused"], again["plan_id"] != first["plan_id"]) == (False, ["checkpoint"], True)


def test_an_edit_by_hand_is_seen_shown_and_written_over_only_when_forced(bundle, here):
    document("repo", bundle, "-o", "made")
    config = here / "made" / "ensemble" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: ", "max_batch_size: 1  # "))
    edited = texts_in(here / "made")

    refused = run("repo", bundle, "-o", "made")
    assert (refused.exit_code, texts_in(here / "made")) == (2, edited)
    assert "made holds ensemble/config.pbtxt, which trtk did not write as it is now." in refused.stderr
    shown = run("repo", bundle, "-o", "made", "--dry-run")
    assert (shown.exit_code, texts_in(here / "made")) == (0, edited)
    lines = shown.stdout.splitlines()
    assert lines[:2] == ["--- a/ensemble/config.pbtxt", "+++ b/ensemble/config.pbtxt"]
    assert next(line for line in lines[2:] if line[0] in "+-").startswith("-max_batch_size: 1  # ")
    assert document("repo", bundle, "-o", "made", "--dry-run")["changed"] == ["ensemble/config.pbtxt"]
    assert run("repo", bundle, "-o", "made", "--force").exit_code == 0
    assert document("repo", bundle, "-o", "made", "--dry-run") == {"folder": "made", "changed": [], "diff": []}


def test_a_dry_run_of_a_new_one_shows_every_file_and_makes_none(bundle, here):
    found = document("repo", bundle, "-o", "made", "--dry-run")

    assert "tensorrt_llm/config.pbtxt" in found["changed"]
    assert '+parameters { key: "gpt_model_path" value { string_value: "/tmp/trtk/engine" } }' in found["diff"]
    assert list(here.iterdir()) == []


def test_what_trtk_did_not_write_is_left_alone_even_when_forced(bundle, here):
    (here / "home").mkdir()
    (here / "home" / "thesis.txt").write_text("mine")

    for force in ([], ["--force"]):
        assert run("repo", bundle, "-o", "home", *force).exit_code == 2
    assert texts_in(here / "home") == {"thesis.txt": "mine"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "takes one of ENGINE, --check and --parameters; none was given"),
        (["{bundle}", "--parameters"], 2, "ENGINE and --parameters was given"),
        (["nowhere"], 2, "There is no folder nowhere"),
        (["{bundle}/checkpoint"], 2, "is no folder that `trtk build` finished"),
        (["{bundle}", "-o", "{bundle}/model_repository"], 2, "whose manifest says what is in it"),
        (["{bundle}", "-o", "{bundle}/.."], 2, "would take the place of"),
        (["{bundle}", "--release", "26.06"], 2, "--release is of --check"),
        (["{bundle}", "--set", "nonsense"], 2, "is not MODEL.KEY=VALUE"),
        (["{bundle}", "--set", "tensorrt_llm.max_beam_widht=1"], 2, "Did you mean max_beam_width"),
        (["{bundle}", "--set", "tensorrt_llm.max_beam_width=2"], 3, "max_beam_width 2 is above the engine's 1."),
        (["{bundle}", "--kv-cache-host-memory", "much"], 2, "--kv-cache-host-memory 'much' is no amount"),
        (["{bundle}", "--instances", "tensorrt_llm=0"], 2, "is not MODEL=N with N from 1"),
        (["{bundle}", "--instances", "tensorrt=2"], 2, "no model of this repository with instances"),
        (["{bundle}", "--gpu-devices", "0;1"], 3, "gpu_device_ids has 2 sets, and instance_group has 1."),
        (["{bundle}", "--model-name", "llm"], 3, "--model-name is of the LLM API's one model"),
        (["{bundle}", "--mount", "here"], 2, "is not HOST:CONTAINER"),
        (["{bundle}", "--draft", "{bundle}"], 3, "needs two compiled engines"),
        (["{llm_api}", "--decoding-mode", "top_k"], 3, "--decoding-mode is nothing that the LLM API has"),
        (["{llm_api}", "--max-queue-size", "9"], 3, "--max-queue-size is nothing that the LLM API's model has"),
        (["{llm_api}", "--set", "tensorrt_llm.max_beam_width=1"], 2, "has one model, ensemble"),
        (["{llm_api}", "--set", "ensemble.max_batch_size=1"], 2, "it has an option of its own"),
        (["{llm_api}", "--set", "ensemble.stream_intervall=1"], 2, "Did you mean stream_interval"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_and_nothing_is_written(bundle, llm_api, here, words, code, message):
    result = run("repo", *(word.format(bundle=bundle, llm_api=llm_api) for word in words))

    assert result.exit_code == code, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert list(here.rglob("config.pbtxt")) == []


def test_the_llm_api_s_keys_are_set_like_parameters(llm_api, here):
    options = ["--kv-cache-fraction", "0.5", "--scheduler-policy", "max_utilization", "--model-name", "tensorrt_llm"]
    options += ["--attention-window", "512,1024"]
    keys = ["tensorrt_llm.stream_interval=4", "tensorrt_llm.triton_config.cancellation_check_period_ms=50"]
    document("repo", llm_api, *options, "--set", keys[0], "--set", keys[1], "-o", "made")

    before = yaml.safe_load((llm_api / "model_repository/ensemble/1/model.yaml").read_text())
    after = yaml.safe_load((here / "made/tensorrt_llm/1/model.yaml").read_text())
    before["kv_cache_config"] |= {"free_gpu_memory_fraction": 0.5, "max_attention_window": [512, 1024]}
    before["scheduler_config"]["capacity_scheduler_policy"] = "MAX_UTILIZATION"
    before["triton_config"]["cancellation_check_period_ms"] = 50
    model = after.pop("model")
    assert after == {key: value for key, value in before.items() if key != "model"} | {"stream_interval": 4}
    assert (here / "made" / model).resolve() == llm_api / "checkpoint"
    assert config_of(here / "made").name == "tensorrt_llm"
    assert document("repo", "--check", "made")["is_right"]


def test_paths_are_as_the_server_sees_them(bundle, here):
    engine = compiled(bundle, here / "llama")
    document("repo", "llama", "-o", "bare")
    mounts = ["--mount", "llama:/engines/llama", "--mount", "mounted:/models"]
    document("repo", "llama", *mounts, "--guided-decoding", "xgrammar", "-o", "mounted")

    assert values_of(here / "bare")["gpt_model_path"] == str(engine)
    assert values_of(here / "mounted")["gpt_model_path"] == f"/engines/llama/engine/{ENGINE_KEY}"
    assert values_of(here / "mounted", "postprocessing")["tokenizer_dir"] == "/engines/llama/tokenizer"
    vocabulary = values_of(here / "mounted")["xgrammar_tokenizer_info_path"]
    assert vocabulary == "/models/tensorrt_llm/1/xgrammar_tokenizer_info.json"
    assert document("repo", "--check", "mounted", *mounts)["is_right"]
    (here / "mounted/tensorrt_llm/1/xgrammar_tokenizer_info.json").unlink()
    assert "which is not there" in run("repo", "--check", "mounted", *mounts).stdout


def test_a_guided_bundle_carries_the_vocabulary_where_its_start_puts_the_repository(model, here):
    document("build", model, "--gpu", "a4500", "--quant", "fp16", "--guided-decoding", "xgrammar", "-o", "e")
    import transformers

    made = json.loads((here / "e/model_repository/tensorrt_llm/1/xgrammar_tokenizer_info.json").read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    ids = tokenizer.get_vocab()
    assert made["encoded_vocab"] == sorted(ids, key=ids.get)
    ours, theirs = json.loads(made["tokenizer_str"]), json.loads(tokenizer.backend_tokenizer.to_str())
    for text in (ours, theirs):
        del text["post_processor"]  # transformers adds an empty one to a tokenizer that has none
    assert ours == theirs
    assert made["stop_token_ids"] == [tokenizer.eos_token_id]
    found = values_of(here / "e/model_repository")
    assert found["guided_decoding_backend"] == "xgrammar"
    assert found["xgrammar_tokenizer_info_path"] == "/tmp/trtk/repository/tensorrt_llm/1/xgrammar_tokenizer_info.json"


def test_a_draft_model_shares_the_memory_that_is_left_beside_it(bundle, here):
    compiled(bundle, here / "target")
    draft = compiled(bundle, here / "draft")
    plan = json.loads((bundle / "manifest.json").read_text())["plan"]
    found = document("repo", "target", "--draft", "draft", "-o", "made")

    tokens = (plan["kv_bytes"] - plan["weights_bytes"]) // (2 * plan["kv_bytes_per_token"])
    assert found["is_orchestrated"]
    assert "tensorrt_llm_draft" in found["models"]
    assert values_of(here / "made", "tensorrt_llm_draft")["gpt_model_path"] == str(draft)
    for name in ("tensorrt_llm", "tensorrt_llm_draft"):
        assert values_of(here / "made", name)["max_tokens_in_paged_kv_cache"] == str(tokens)
    assert document("repo", "--check", "made")["is_right"]


def test_a_check_is_a_table_for_people_a_document_for_programs_and_an_exit_code(here):
    stock.write(here / "repository", {**stock.CLEAN, "max_beam_widht": "1"})

    said = run("repo", "--check", "repository")
    assert said.exit_code == 5
    problem = "tensorrt_llm: trtk knows no parameter max_beam_widht of TensorRT-LLM 1.2.1. Did you mean max_beam_width?"
    assert f" 5  {problem}" in said.stdout.splitlines()
    assert max(map(len, said.stdout.split(problem)[0].splitlines())) <= 80
    assert said.stderr.splitlines()[-2] == "Error: repository has one problem."
    result = run("repo", "--check", "repository", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["is_right"], found["release"]) == (5, False, "26.07")
    assert [check["name"] for check in found["checks"] if check["problems"]] == ["keys"]
    assert len(found["checks"]) == 11


def test_a_check_is_for_the_release_that_is_asked_or_written_down(bundle, here):
    stock.write(here / "old", {**stock.CLEAN, "worker_path": "/w"})

    assert run("repo", "--check", "old", "--release", "26.05").exit_code == 5
    assert document("repo", "--check", bundle)["release"] == "26.07"
    assert document("repo", "--check", bundle / "model_repository")["folder"].endswith("model_repository")
    assert run("repo", "--check", "old", "--release", "99.99").exit_code == 2
    assert run("repo", "--check", "nowhere").exit_code == 2
    (here / "empty").mkdir()
    assert "has no model" in run("repo", "--check", "empty").stdout


def test_a_port_that_is_taken_is_a_problem(here):
    stock.write(here / "repository")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = run("repo", "--check", "repository", "--http-port", port)

    assert said.exit_code == 5
    assert f"Port {port} is taken" in said.stdout


def test_every_parameter_of_a_release_is_listed():
    found = document("repo", "--parameters", "--release", "26.07")

    assert found["models"]["tensorrt_llm"]["kv_cache_host_memory_bytes"] == {
        "takes": "a whole number from 0",
        "default": "0",
        "meaning": "host memory that KV blocks are moved to before they are dropped",
        "set_by": "",
    }
    assert found["llm_api"]["stream_interval"] == {"takes": "integer"}
    shown = run("repo", "--parameters").stdout
    assert max(map(len, shown.splitlines())) <= 80
    words = set(shown.split())
    assert set(found["models"]["tensorrt_llm"]) <= words  # no name is broken
