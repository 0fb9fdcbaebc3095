"""`trtk build` explains every flag, divides models among ranks, takes adapters; `trtk migrate` carries engines over."""

import json
import re

import pytest
import yaml
from click.testing import CliRunner
from safetensors.torch import save_file

from tests.conftest import save_llama
from toolkit import releases, repository
from toolkit.cli import main


def rename(manifest, **called):
    """Write down that a build's model came from the hub."""
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**document, "model": {**document["model"], **called}}))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny Llama whose head size TensorRT-LLM's attention has."""
    folder = tmp_path_factory.mktemp("tiny") / "hf"
    save_llama(folder, hidden_size=256, num_attention_heads=4, num_key_value_heads=2)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A LoRA adapter as PEFT saves it."""
    import torch

    folder = tmp_path_factory.mktemp("adapters") / "sql v2"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "target_modules": ["v_proj", "q_proj"], "use_dora": False}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"base_model.model.lora_A.weight": torch.ones(4, 256)}, folder / "adapter_model.safetensors")
    return folder


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def document(*words):
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_dry_run_explains_every_flag(model):
    found = document("build", model, "--gpu", "a4500", "--quant", "int4", "--dry-run", "-o", "e")
    plan = found["plan"]

    key = "sm86-trtllm1.2.1-trt10.14.1.48"
    assert found["command"][:5] == [
        "trtllm-build",
        "--checkpoint_dir",
        "e/checkpoint",
        "--output_dir",
        f"e/engine/{key}",
    ]
    flags = {flag["name"]: flag for flag in plan["build_flags"]}
    assert flags.keys() == {
        *("max_batch_size", "max_seq_len", "max_num_tokens", "max_beam_width", "multiple_profiles", "opt_num_tokens"),
        *("gpt_attention_plugin", "gemm_plugin", "use_fused_mlp", "kv_cache_type", "tokens_per_block"),
        *("remove_input_padding", "context_fmha", "use_paged_context_fmha", "use_fp8_context_fmha", "workers"),
    }
    assert all(len(flag["reason"].split()) > 1 for flag in flags.values())
    assert flags["use_fused_mlp"]["reason"].endswith("and this one is W4A16_AWQ")
    assert flags.keys() <= releases.build_tool_of(releases.get(plan["release"]["name"])).flags.keys()
    shown = run("build", model, "--gpu", "a4500", "--quant", "int4", "--dry-run")
    assert all(name in shown.stdout for name in flags)
    assert all(f"--{name}" in found["command"] for name in flags)
    assert document("build", model, "--gpu", "cpu", "--quant", "int4", "--dry-run")["command"] is None


def test_ranks_are_in_the_checkpoint_the_plan_and_the_bundle(model, tmp_path):
    document("build", model, "--gpu", "h100", "--quant", "fp16", "--tp", 2, "--pp", 2, "-o", tmp_path / "e")

    manifest = json.loads((tmp_path / "e/manifest.json").read_text())
    config = json.loads((tmp_path / "e/checkpoint/config.json").read_text())
    ranks = sorted(path.name for path in (tmp_path / "e/checkpoint").glob("rank*"))
    assert ranks == [f"rank{rank}.safetensors" for rank in range(4)]
    assert {key: manifest["plan"]["limits"][key] for key in ("tp", "pp", "ep")} == {"tp": 2, "pp": 2, "ep": 1}
    assert (config["mapping"]["tp_size"], config["mapping"]["pp_size"]) == (2, 2)
    flags = {flag["name"]: flag["value"] for flag in manifest["plan"]["build_flags"]}
    assert (flags["workers"], flags["reduce_fusion"], flags["nccl_plugin"]) == ("4", "enable", "auto")


def test_a_cache_that_has_no_paged_context_is_served_without_what_needs_one(model, tmp_path):
    options = ["--kv-cache", "int8", "--calib-samples", 1, "--calib-length", 16]
    document("build", model, "--gpu", "a4500", "--quant", "fp16", *options, "-o", tmp_path / "e")

    config = (tmp_path / "e/model_repository/tensorrt_llm/config.pbtxt").read_text()
    for name in ("enable_kv_cache_reuse", "enable_chunked_context"):
        assert f'key: "{name}" value {{ string_value: "false" }}' in config


def test_an_adapter_travels_with_the_checkpoint(model, adapter, tmp_path):
    document("build", model, "--gpu", "a4500", "--quant", "fp16", "--lora-dir", adapter, "-o", tmp_path / "e")

    manifest = json.loads((tmp_path / "e/manifest.json").read_text())
    flags = {flag["name"]: flag["value"] for flag in manifest["plan"]["build_flags"]}
    assert (flags["lora_dir"], flags["lora_target_modules"], flags["max_lora_rank"]) == (
        "lora/sql-v2",
        "attn_q attn_v",
        "4",
    )
    copied = tmp_path / "e/checkpoint/lora/sql-v2/adapter_model.safetensors"
    assert copied.read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()
    assert f"checkpoint/lora/sql-v2/{copied.name}" in {record["path"] for record in manifest["files"]}


def test_adapters_of_an_interrupted_build_stay_out_of_the_next(model, adapter, tmp_path, monkeypatch):
    words = ["build", model, "--gpu", "a4500", "--quant", "fp16", "-o", tmp_path / "e"]
    monkeypatch.setenv("TRTK_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as cut:
        cut.setattr(repository, "write", lambda *_: 1 / 0)
        assert isinstance(run(*words, "--lora-dir", adapter).exception, ZeroDivisionError)
    assert (tmp_path / "e.partial/checkpoint/lora/sql-v2").is_dir()
    monkeypatch.setenv("TRTK_CACHE", str(tmp_path / "another cache"))  # where nothing can be taken from

    document(*words)

    assert not (tmp_path / "e/checkpoint/lora").exists()


WRONG = {
    "no adapter": (["--lora-dir", "{tmp}"], 2, "is no adapter: it has no adapter_config.json."),
    "dora": (["--lora-dir", "{tmp}/dora"], 2, "describes DoRA, not LoRA."),
    "pickled": (["--lora-dir", "{tmp}/pickled"], 2, "has no adapter_model.safetensors."),
    "flag": (["--set-flag", "use-fuse-mlp=enable"], 2, "There is no flag of trtllm-build 1.2 named 'use_fuse_mlp'."),
    "no name": (["--set-flag", "=enable"], 2, "'=enable' is not NAME=VALUE."),
    "cpu ranks": (["--gpu", "cpu", "--tp", "2"], 3, "--tp, --pp and --ep divide a model among NVIDIA GPUs"),
    "cpu flags": (["--gpu", "cpu", "--set-flag", "workers=2"], 3, "the CPU engine has none of them."),
    "ranks": (["--tp", "3"], 3, "--tp 3 does not divide the model's 4 attention heads."),
    "medusa": (["--speculative", "medusa"], 3, "--speculative medusa needs a checkpoint with such heads"),
    "old release": (["--release", "24.12"], 3, "trtk does not know the flags of trtllm-build 0.16.0"),
    "llmapi": (["--flow", "llmapi", "--speculative", "lookahead_decoding"], 3, "is built into a compiled engine"),
    "llmapi kv": (["--flow", "llmapi", "--kv-cache", "int8"], 3, "--kv-cache int8 is of the engine flow"),
}


@pytest.mark.parametrize(("options", "code", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_is_refused_before_any_work(model, tmp_path, options, code, message):
    for name, config in (("dora", {"use_dora": True}), ("pickled", {})):
        (tmp_path / name).mkdir()
        described = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], **config}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(described))
    (tmp_path / "dora/adapter_model.safetensors").write_bytes(b"")

    words = [word.format(tmp=tmp_path) for word in options]
    result = run("build", model, "--gpu", "a4500", "--quant", "fp16", "-o", tmp_path / "out", *words)

    assert result.exit_code == code, result.stderr
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "asked",
    [
        "--gpu a4500 --quant fp8",
        "--gpu b200 --quant int4_rtn",
        "--gpu t4 --quant int4_rtn",
        "--gpu t4 --quant nvfp4 --flow engine",
        "--gpu a4500 --quant int4_rtn --release 24.12",
        "--gpu h100 --quant fp16 --release 25.06 --flow llmapi",
        "--gpu h100 --quant fp16 --flow openvino",
        "--gpu cpu --quant fp16 --flow engine",
        "--gpu h100 --quant fp16 --tp 3",
        "--gpu a4500 --quant fp16 --speculative eagle",
        "--gpu a4500 --quant fp16 --speculative lookahead_decoding --max-draft-len 1",
    ],
)
def test_the_options_of_a_hint_give_a_plan(model, asked):
    refused = run("build", model, *asked.split(), "--dry-run")
    assert refused.exit_code == 3
    (hint,) = re.findall(r"Hint: Try (.*)", refused.stderr)

    for alternative in hint.split(" or "):
        options = re.findall(r"--[a-z-]+ [a-z0-9_]+", alternative)
        assert options
        done = run("build", model, *asked.split(), *" ".join(options).split(), "--dry-run")
        assert done.exit_code == 0, (hint, done.stderr)


def test_the_llm_api_needs_no_compiler(model, tmp_path):
    made = document(
        "build", model, "--gpu", "h100", "--quant", "fp8", "--flow", "llmapi", "--tp", 2, "-o", tmp_path / "e"
    )

    assert (made["kind"], made["is_deferred"], made["limits"]["tp"]) == ("llmapi", False, 2)
    settings = yaml.safe_load((tmp_path / "e/model_repository/ensemble/1/model.yaml").read_text())
    assert settings["tensor_parallel_size"] == 2
    assert (tmp_path / "e/model_repository" / settings["model"] / "hf_quant_config.json").is_file()
    assert (tmp_path / "e/tokenizer/tokenizer.json").is_file()
    bundle = json.loads((tmp_path / "e/bundle.json").read_text())
    assert (bundle["flow"], bundle["world_size"]) == ("llmapi", 2)


def test_an_engine_goes_over_with_its_name_limits_and_cache(model, adapter, tmp_path):
    options = ["--max-batch-size", 24, "--max-seq-len", 128, "--tp", 2, "--lora-dir", adapter, "--kv-cache", "fp8"]
    served = ["--kv-cache-fraction", 0.5, "--scheduler-policy", "max_utilization", "--max-queue-size", 9]
    document("build", model, "--gpu", "l4", "--quant", "fp8", *options, *served, "-o", tmp_path / "e")

    rename(tmp_path / "e/manifest.json", name="acme/tiny", revision="0123abc")

    assert "no such setting: max_queue_size." in run("migrate", tmp_path / "e", "--dry-run").stderr
    shown = document("migrate", tmp_path / "e", "--dry-run")
    assert not (tmp_path / "e-llmapi").exists()
    made = document("migrate", tmp_path / "e")

    old, new = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("e", "e-llmapi"))
    assert shown["plan"]["plan_id"] == made["plan_id"]
    assert [choice["name"] for choice in shown["left_behind"]] == ["lora_weights", "tensorrt_llm_bls"]
    assert (made["kind"], made["folder"]) == ("llmapi", str(tmp_path / "e-llmapi"))
    assert new["plan"]["limits"] == old["plan"]["limits"]
    same = ("recipe", "kv_cache", "dtype", "group_size", "calibration", "model")
    assert {key: new["plan"]["conversion"][key] for key in same} == {
        key: old["plan"]["conversion"][key] for key in same
    }
    assert new["model"] == old["model"]
    settings = yaml.safe_load((tmp_path / "e-llmapi/model_repository/ensemble/1/model.yaml").read_text())
    assert {key: settings[key] for key in ("max_batch_size", "max_seq_len", "tensor_parallel_size")} == {
        "max_batch_size": 24,
        "max_seq_len": 128,
        "tensor_parallel_size": 2,
    }
    assert settings["kv_cache_config"]["free_gpu_memory_fraction"] == 0.5
    assert settings["scheduler_config"]["capacity_scheduler_policy"] == "MAX_UTILIZATION"
    assert settings["lora_config"]["lora_dir"] == ["lora/sql-v2"]
    assert (tmp_path / "e-llmapi/checkpoint/lora/sql-v2/adapter_config.json").is_file()
    described = json.loads((tmp_path / "e-llmapi/checkpoint/hf_quant_config.json").read_text())
    assert described["quantization"]["kv_cache_quant_algo"] == "FP8"


def test_what_would_be_missed_is_refused_until_it_is_dropped(model, tmp_path):
    document("build", model, "--gpu", "a4500", "--quant", "fp16", "--kv-cache", "none",
             "--speculative", "lookahead_decoding", "-o", tmp_path / "e")  # fmt: skip

    config = (tmp_path / "e/model_repository/tensorrt_llm/config.pbtxt").read_text()
    assert 'key: "decoding_mode" value { string_value: "lookahead" }' in config
    refused = run("migrate", tmp_path / "e")
    assert refused.exit_code == 3
    assert "speculative lookahead_decoding of the engine cannot go over" in refused.stderr
    assert "Hint: Leave it behind with --drop speculative." in refused.stderr
    agreed = run("migrate", tmp_path / "e", "--drop", "speculative", "-o", tmp_path / "new")
    assert agreed.exit_code == 0
    assert "Left behind: speculative lookahead_decoding" in agreed.stderr


def test_only_a_finished_engine_of_the_same_weights_goes_over(model, tmp_path):
    other = tmp_path / "other"
    save_llama(other, hidden_size=256, num_attention_heads=4, num_key_value_heads=2, vocab_size=321)
    document("build", model, "--gpu", "a4500", "--quant", "int8_sq", "-o", tmp_path / "sq", "--calib-samples", 1)
    document("build", model, "--gpu", "h100", "--quant", "fp16", "--flow", "llmapi", "-o", tmp_path / "api")
    (tmp_path / "empty").mkdir()

    for words, code, message in (
        (["migrate", tmp_path / "empty"], 2, "is no folder that `trtk build` finished."),
        (["migrate", tmp_path / "sq", "-o", tmp_path / "sq"], 2, "is the engine itself."),
        (["migrate", tmp_path / "api"], 2, "holds a deployment of the kind llmapi"),
        (["migrate", tmp_path / "sq"], 3, "int8_sq runs on no GPU in the llmapi flow."),
        (["migrate", tmp_path / "sq"], 3, "trtk build MODEL --gpu a4500 --flow llmapi --quant int4."),
        (["migrate", tmp_path / "sq", "--release", "25.06"], 3, "Hint: Leave --release out."),
        (["migrate", tmp_path / "sq", "--model", other], 2, "are not those that the engine was made of."),
    ):
        result = run(*words)
        assert (result.exit_code, message in " ".join(result.stderr.split())) == (code, True), result.stderr
        assert "Hint: " in result.stderr
