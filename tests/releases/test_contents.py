"""What trtllm-build and the LLM API accept, against the documented contract typed here a second time."""

import pytest

from toolkit import releases
from toolkit.releases import contents
from toolkit.specs import BuildTool

#: Typed from the usage text of trtllm-build in the documentation and its argparse source: names, then defaults.
SWITCHES = """strip_plan weight_sparsity weight_streaming fast_build enable_debug_output dry_run monitor_memory
gather_context_logits gather_generation_logits gather_all_token_logits"""
VALUES = """checkpoint_dir model_config build_config model_cls_file model_cls_name output_dir=engine_outputs
max_batch_size=2048 max_input_len=1024 max_seq_len max_beam_width=1 max_num_tokens=8192 opt_num_tokens
max_encoder_input_len=1024 max_prompt_embedding_table_size=0 kv_cache_type paged_kv_cache input_timing_cache
output_timing_cache=model.cache profiling_verbosity=layer_names_only workers=1 log_level=info visualize_network
logits_dtype lora_dir lora_ckpt_source=hf lora_target_modules max_lora_rank=64 speculative_decoding_mode max_draft_len=0
bert_attention_plugin=auto gpt_attention_plugin=auto gemm_plugin=disable gemm_swiglu_plugin=disable
fp8_rowwise_gemm_plugin=disable lora_plugin=disable dora_plugin=disable moe_plugin=auto mamba_conv1d_plugin=auto
nccl_plugin=auto low_latency_gemm_plugin=disable low_latency_gemm_swiglu_plugin=disable gemm_allreduce_plugin=disable
context_fmha=enable bert_context_fmha_fp32_acc=disable remove_input_padding=enable tokens_per_block=32
use_paged_context_fmha=enable use_fp8_context_fmha=enable fuse_fp4_quant=disable multiple_profiles=disable
paged_state=enable streamingllm=disable norm_quant_fusion=disable reduce_fusion=disable user_buffer=disable
use_fused_mlp=enable pp_reduce_scatter=disable"""
AUTO_PARALLEL = "auto_parallel=1 gpus_per_node=8 cluster_key"
PLUGIN_DTYPES = ("auto", "float16", "float32", "bfloat16", "int32", "disable")


def defaults_of(tool: BuildTool) -> dict[str, str | None]:
    return {name: flag.default for name, flag in tool.flags.items() if flag.kind != "switch"}


def typed(words: str) -> dict[str, str | None]:
    return {name: value or None for name, _, value in (word.partition("=") for word in words.split())}


@pytest.mark.parametrize("tag", ["26.07", "26.03"])
def test_1_2_has_the_documented_flags_and_no_auto_parallel(tag):
    tool = releases.build_tool_of(releases.get(tag))

    assert tool.name == "1.2"
    assert {name for name, flag in tool.flags.items() if flag.kind == "switch"} == set(SWITCHES.split())
    assert defaults_of(tool) == typed(VALUES)


@pytest.mark.parametrize("tag", ["25.06", "25.07", "25.08", "25.09", "25.10", "25.11", "25.12", "26.01", "26.02"])
def test_0_20_to_1_1_also_have_the_auto_parallel_planner(tag):
    tool = releases.build_tool_of(releases.get(tag))

    assert releases.get(tag).tensorrt_llm.startswith(tool.name)
    assert defaults_of(tool) == typed(VALUES) | typed(AUTO_PARALLEL)
    assert tool.flags["gemm_plugin"].choices == (*PLUGIN_DTYPES[:-1], "fp8", "nvfp4", "disable")


def test_plugins_take_the_dtypes_that_their_source_lists():
    flags = releases.build_tool_of(releases.default()).flags
    plugins = {name: flag.choices for name, flag in flags.items() if name.endswith("_plugin")}

    fp8_only = {"gemm_swiglu_plugin", "low_latency_gemm_plugin", "low_latency_gemm_swiglu_plugin"}
    own = {"gemm_plugin", "gemm_allreduce_plugin", "dora_plugin"} | fp8_only
    assert {plugins[name] for name in plugins.keys() - own} == {PLUGIN_DTYPES}
    assert {plugins[name] for name in fp8_only} == {("fp8", "disable")}
    assert plugins["gemm_allreduce_plugin"] == ("float16", "bfloat16", "disable")
    assert plugins["dora_plugin"] == ("enable", "disable")


def test_sm_100_refuses_five_flags():
    flags = releases.build_tool_of(releases.default()).flags

    assert {name for name, flag in flags.items() if flag.refused_sms == (100,)} == {
        "gemm_swiglu_plugin",
        "fp8_rowwise_gemm_plugin",
        "low_latency_gemm_plugin",
        "low_latency_gemm_swiglu_plugin",
        "bert_context_fmha_fp32_acc",
    }


def test_the_command_line_also_takes_two_older_names():
    names = set(releases.build_tool_of(releases.default()).names())

    assert {"max_decoder_seq_len", "max_multimodal_len"} <= names
    assert len(names) == len(typed(VALUES)) + len(SWITCHES.split()) + 2


@pytest.mark.parametrize("release", releases.catalogue(), ids=lambda release: release.name)
def test_every_release_from_0_20_on_is_known_and_sourced(release):
    version = tuple(int(part) for part in release.tensorrt_llm.split(".")[:2])
    tool, api = releases.build_tool_of(release), releases.llm_api_of(release)

    assert (tool is not None) == (version >= (0, 20))
    assert (api is not None) == ("llmapi" in release.flows)
    for facts in filter(None, (tool, api)):
        assert facts.sources
        assert all(source.startswith("https://") for source in facts.sources)
        assert facts.notes


def test_an_unknown_key_in_the_data_is_an_error(tmp_path):
    (tmp_path / "9.9.toml").write_text('name = "9.9"\nsources = []\n[flags.a]\nkind = "switch"\nchoise = []\n')

    with pytest.raises(ValueError, match="has keys that BuildFlag does not have: choise"):
        contents.build_tool(tmp_path / "9.9.toml")


@pytest.mark.parametrize("tag", ["25.09", "25.12", "26.07"])
def test_the_llm_api_knows_the_keys_that_every_line_committed_to(tag):
    """From references_committed/llm.yaml, whose keys are stable since 1.0."""
    committed = """model tokenizer dtype tensor_parallel_size pipeline_parallel_size moe_tensor_parallel_size
    moe_expert_parallel_size enable_lora guided_decoding_backend max_batch_size max_seq_len max_beam_width
    max_num_tokens enable_chunked_prefill stream_interval"""

    api = releases.llm_api_of(releases.get(tag))

    assert set(committed.split()) <= set(api.keys)
    assert set(api.choices) == {key for key, kind in api.keys.items() if kind == "choice"}
