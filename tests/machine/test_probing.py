"""An image is held against what trtk knows: names are read even from templates, and each difference is named."""

import dataclasses

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from toolkit import releases, repository
from toolkit.cli import probing as cli_probing
from toolkit.machine import FAIL, OK, WARN
from toolkit.machine.config_text import names_in
from toolkit.machine.probing import Contents, compare

RELEASE = releases.get("26.07")
TOOL = releases.build_tool_of(RELEASE)
RENDERED = {
    path.split("/")[0]: text
    for path, text in repository.render(cli_probing.REPOSITORY).items()
    if path.endswith("config.pbtxt")
}
#: Typed from the engine's config.pbtxt, triton_backend/all_models/inflight_batcher_llm in NVIDIA/TensorRT-LLM.
INPUTS = """
input_ids encoder_input_features encoder_output_lengths input_lengths request_output_len num_return_sequences
draft_input_ids decoder_input_ids decoder_input_lengths draft_logits draft_acceptance_threshold end_id pad_id
stop_words_list bad_words_list embedding_bias beam_width temperature runtime_top_k runtime_top_p runtime_top_p_min
runtime_top_p_decay runtime_top_p_reset_ids len_penalty early_stopping repetition_penalty min_tokens
beam_search_diversity_rate presence_penalty frequency_penalty seed return_log_probs return_context_logits
return_generation_logits return_perf_metrics return_num_input_tokens return_num_output_tokens exclude_input_in_output
stop streaming prompt_embedding_table prompt_table_extra_ids prompt_vocab_size cross_attention_mask
mrope_rotary_cos_sin mrope_position_deltas lora_task_id lora_weights lora_config context_phase_params
skip_cross_attn_blocks retention_token_range_starts retention_token_range_ends retention_token_range_priorities
retention_token_range_durations_ms retention_decode_priority retention_decode_duration_ms guided_decoding_guide_type
guided_decoding_guide lookahead_window_size lookahead_ngram_size lookahead_verification_set_size
""".split()  # noqa: SIM905 - a list to read
OUTPUTS = """
output_ids sequence_length cum_log_probs output_log_probs context_logits generation_logits batch_index sequence_index
context_phase_params kv_cache_alloc_new_blocks kv_cache_reused_blocks kv_cache_alloc_total_blocks arrival_time_ns
first_scheduled_time_ns first_token_time_ns last_token_time_ns acceptance_rate total_accepted_draft_tokens
total_draft_tokens num_input_tokens num_output_tokens
""".split()  # noqa: SIM905 - a list to read
PARAMETERS = """
max_beam_width FORCE_CPU_ONLY_INPUT_TENSORS gpt_model_type gpt_model_path encoder_model_path
max_tokens_in_paged_kv_cache max_attention_window_size sink_token_length batch_scheduler_policy
kv_cache_free_gpu_mem_fraction cross_kv_cache_fraction kv_cache_host_memory_bytes kv_cache_onboard_blocks
enable_trt_overlap exclude_input_in_output cancellation_check_period_ms stats_check_period_ms
iter_stats_max_iterations request_stats_max_iterations enable_kv_cache_reuse normalize_log_probs
enable_chunked_context gpu_device_ids participant_ids num_nodes lora_cache_optimal_adapter_size
lora_cache_max_adapter_size lora_cache_gpu_memory_fraction lora_cache_host_memory_bytes lora_prefetch_dir
decoding_mode executor_worker_path lookahead_window_size lookahead_ngram_size lookahead_verification_set_size
medusa_choices eagle_choices gpu_weights_percent enable_context_fmha_fp32_acc multi_block_mode cuda_graph_mode
cuda_graph_cache_size speculative_decoding_fast_logits tokenizer_dir guided_decoding_backend
xgrammar_tokenizer_info_path
""".split()  # noqa: SIM905 - a list to read


def template(inputs=INPUTS, outputs=OUTPUTS, parameters=PARAMETERS):
    """Write a configuration as images carry it: with placeholders, comments, and a comma behind each tensor."""

    def tensors(names):
        rows = [
            f'  # "{name}": 0 [ see {{ there\n  {{\n    name: "{name}"\n    data_type: ${{logits_datatype}}\n'
            "    dims: [ -1 ]\n    reshape: { shape: [ ] }\n  }"
            for name in names
        ]
        return ",\n".join(rows)

    keys = "".join(
        f'parameters: {{\n  key: "{key}"\n  value: {{\n    string_value: "${{{key}}}"\n  }}\n}}\n' for key in parameters
    )
    return (
        'name: "tensorrt_llm"\nbackend: "${triton_backend}"\nmax_batch_size: ${triton_max_batch_size}\n'
        "dynamic_batching {\n    preferred_batch_size: [ ${triton_max_batch_size} ]\n"
        "    default_queue_policy: { max_queue_size: ${max_queue_size} }\n}\n"
        f"input [\n{tensors(inputs)}\n]\noutput [\n{tensors(outputs)}\n]\n"
        f"instance_group [\n  {{\n    count: 1\n    kind : KIND_CPU\n  }}\n]\n{keys}"
    )


def builder_help(names):
    """Write help as argparse does."""
    lines = "".join(f"  --{name} {name.upper()}\n                        See --{names[0]}.\n" for name in names)
    return f"usage: trtllm-build [-h] [--{names[0]} X]\n\noptions:\n  -h, --help            show this help\n{lines}"


#: An image that is exactly what trtk knows.
KNOWN = Contents(
    configs={**RENDERED, "tensorrt_llm": template()},
    builder_help=builder_help(TOOL.names()),
    tensorrt_llm="1.2.1",
    tensorrt="10.14.1.48.post1",
)


def lines(contents, tool=TOOL):
    found = compare(contents, release=RELEASE, tool=tool, rendered=RENDERED)
    assert len({check.name for check in found}) == len(found)
    return {check.name: check for check in found}


@pytest.mark.parametrize("model", sorted(RENDERED))
def test_names_are_those_that_triton_s_own_parser_reads(model):
    parsed = text_format.Parse(RENDERED[model], model_config_pb2.ModelConfig())

    found = names_in(RENDERED[model])

    assert found.inputs == {one.name for one in parsed.input}
    assert found.outputs == {one.name for one in parsed.output}
    assert found.parameters == set(parsed.parameters)


def test_names_are_read_from_a_template_that_no_parser_takes():
    with pytest.raises(text_format.ParseError):
        text_format.Parse(template(), model_config_pb2.ModelConfig())

    found = names_in(template())

    assert (found.inputs, found.outputs) == (set(INPUTS), set(OUTPUTS))
    assert found.parameters == set(PARAMETERS)


def test_an_image_that_is_known_is_all_ok():
    assert {name: check.status for name, check in lines(KNOWN).items() if check.status != OK} == {}


def changed(**parts):
    return dataclasses.replace(KNOWN, configs={**KNOWN.configs, "tensorrt_llm": template(**parts)})


@pytest.mark.parametrize(
    ("contents", "line", "status", "found"),
    [
        (
            changed(inputs=[name for name in INPUTS if name != "runtime_top_k"]),
            "tensorrt_llm inputs",
            FAIL,
            "trtk writes what the image does not know: runtime_top_k",
        ),
        (changed(outputs=[*OUTPUTS, "logits_2"]), "more tensorrt_llm outputs", WARN, "the image has more: logits_2"),
        (
            changed(parameters=[key for key in PARAMETERS if key != "enable_chunked_context"]),
            "tensorrt_llm parameters",
            FAIL,
            "trtk writes what the image does not know: enable_chunked_context",
        ),
        (
            dataclasses.replace(KNOWN, builder_help=builder_help([n for n in TOOL.names() if n != "max_batch_size"])),
            "trtllm-build --help",
            FAIL,
            "the image does not take: max_batch_size",
        ),
        (
            dataclasses.replace(KNOWN, builder_help=builder_help([*TOOL.names(), "quantum"])),
            "more of trtllm-build --help",
            WARN,
            "the image takes more: quantum",
        ),
        (
            dataclasses.replace(KNOWN, builder_help="", builder_fault="libcuda.so.1: cannot open"),
            "trtllm-build --help",
            WARN,
            "libcuda.so.1: cannot open",
        ),
        (dataclasses.replace(KNOWN, tensorrt_llm="1.3.0"), "TensorRT-LLM", FAIL, "1.3.0; release 26.07 has 1.2.1"),
        (dataclasses.replace(KNOWN, tensorrt=""), "TensorRT", WARN, "not found in the image"),
        (
            dataclasses.replace(KNOWN, configs={"tensorrt_llm": template()}),
            "model preprocessing",
            WARN,
            "the image has no all_models/inflight_batcher_llm/preprocessing/config.pbtxt",
        ),
    ],
)
def test_each_difference_is_named(contents, line, status, found):
    check = lines(contents)[line]

    assert (check.status, check.found) == (status, found)
    assert check.hint


def test_a_release_without_the_engine_flow_has_no_builder_to_compare():
    assert lines(KNOWN, tool=None)["trtllm-build --help"].status == OK
