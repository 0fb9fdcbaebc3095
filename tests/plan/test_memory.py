"""The memory of a card is planned as servers were seen to use it: boot logs that others published."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.shapes import DEMO, LLAMA2_7B, LLAMA_8B, LLAMA_70B, MISTRAL_7B, QWEN_05B
from toolkit import quant
from toolkit.plan import kv_cache, memory
from toolkit.specs import Limits, Sharding

MIB, GIB = 1 << 20, 1 << 30
#: https://nvidia.github.io/TensorRT-LLM/reference/memory.html: Llama-2-7B in FP8 on 80 GB, 64 tokens a block, 2048 a
#: request; the builder's batch of 256 and 8192 tokens a step.
MEMORY_MD = Limits(max_batch_size=256, max_seq_len=2048, max_num_tokens=8192)
#: https://github.com/NVIDIA/TensorRT-LLM/issues/1188: Qwen2.5-Coder-0.5B in INT8 with the builder's defaults.
ISSUE_1188 = Limits(max_batch_size=2048, max_seq_len=32768, max_num_tokens=8192)


def within(expected, *, relative=0.05, absolute=0):
    return pytest.approx(expected, rel=relative, abs=absolute)


@pytest.mark.parametrize(
    ("model", "recipe", "published"),
    [(LLAMA2_7B, "fp8", 6695 * MIB), (QWEN_05B, "int8", 875 * MIB)],
    ids=["memory.md", "issue 1188"],
)
def test_weights_are_the_published_engine_sizes(model, recipe, published):
    assert memory.weights_bytes(model, quant.get(recipe), None) == within(published, relative=0.03)


def test_llama_2_in_published_formats_takes_the_published_sizes():
    found = {
        name: memory.weights_bytes(LLAMA_8B, quant.get(name), size) / 1e9
        for name, size in (("fp16", None), ("fp8", None), ("int4", 128), ("nvfp4", 16))
    }

    assert found == {"fp16": within(16.06), "fp8": within(9.08), "int4": within(5.7), "nvfp4": within(6.0)}


def test_activations_are_those_of_the_published_logs():
    assert memory.activation_bytes(LLAMA2_7B, MEMORY_MD, quant.get("fp8")) == within(1134.01 * MIB)
    assert memory.activation_bytes(QWEN_05B, ISSUE_1188, quant.get("int8")) == within(773.51 * MIB)


def test_decoder_and_runtime_buffers_are_those_of_the_published_logs():
    assert memory.decoder_bytes(QWEN_05B, ISSUE_1188) == within(5.76 * GIB)
    assert memory.decoder_bytes(LLAMA2_7B, MEMORY_MD) == within(180.30 * MIB, absolute=32 * MIB)
    assert memory.buffers_bytes(QWEN_05B, ISSUE_1188) == within(2.66 * GIB)
    assert memory.buffers_bytes(LLAMA2_7B, MEMORY_MD) == within(43.29 * MIB)


def test_a_whole_published_boot_is_planned_within_0_7_gib():
    used = memory.weights_bytes(LLAMA2_7B, quant.get("fp8"), None)
    used += memory.activation_bytes(LLAMA2_7B, MEMORY_MD, quant.get("fp8"))
    used += memory.runtime_bytes(LLAMA2_7B, MEMORY_MD)

    assert 79.10 - used / GIB == within(70.48, relative=0, absolute=0.7)


def test_memory_grows_in_a_line_with_the_batch_as_issue_247_saw_it():
    """27, 49 and 72 GB for 1, 64 and 128 requests lie on a line, and so does the plan."""
    assert within(49, relative=0.01) == 27 + (72 - 27) * 63 / 127
    sizes = [
        memory.runtime_bytes(LLAMA2_7B, dataclasses.replace(MEMORY_MD, max_batch_size=batch)) for batch in (1, 64, 127)
    ]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] > 0


def test_kv_bytes_per_token_are_those_of_published_server_logs():
    each = {
        "Llama-2-7B, 8 bits: 63.44 GiB for 259840 tokens": memory.kv_bytes_per_token(LLAMA2_7B, kv_bytes=1),
        "Llama-2-7B, issue 1400: 69524783104 for 132608": memory.kv_bytes_per_token(LLAMA2_7B),
        "Llama-3-8B": memory.kv_bytes_per_token(LLAMA_8B),
        "Llama-3-70B": memory.kv_bytes_per_token(LLAMA_70B),
        "Llama-3-70B, 8 ranks": memory.kv_bytes_per_token(LLAMA_70B, sharding=Sharding(tp=8)),
        "Llama-3-70B, 16 ranks": memory.kv_bytes_per_token(LLAMA_70B, sharding=Sharding(tp=16)),
        "Llama-3-70B, 4 stages": memory.kv_bytes_per_token(LLAMA_70B, sharding=Sharding(pp=4)),
        "Qwen2.5-0.5B, issue 1188: 4.53 GiB for 395776": memory.kv_bytes_per_token(QWEN_05B),
        "DeepSeek-V3": kv_cache.bytes_per_token([kv_cache.latent(61, lora_rank=512, rope_dim=64)]),
    }

    assert list(each.values()) == [262_144, 524_288, 131_072, 327_680, 40_960, 40_960, 81_920, 12_288, 70_272]
    assert 69_524_783_104 / 132_608 == 524_288
    assert within(262_144, relative=1e-3) == 63.44 * GIB / 259_840
    assert within(12_288, relative=2e-3) == 4.53 * GIB / 395_776


def test_a_window_bounds_what_its_layers_cache():
    short = kv_cache.of_model(MISTRAL_7B)

    assert kv_cache.bytes_of_request(short, 4096) == 4096 * 131_072
    assert kv_cache.bytes_of_request(short, 32_768) == 4096 * 131_072


def test_the_cpu_engine_has_as_many_blocks_as_it_says():
    """Read from a server of the demo model with a cache of 1 GiB."""
    per_token = kv_cache.bytes_per_token(kv_cache.of_cpu_engine(DEMO))

    assert (1 << 30) // (32 * per_token) == 2452


def test_a_hybrid_model_keeps_a_state_and_caches_in_some_layers_alone():
    cached = [
        kv_cache.CachedLayers(layers=4, bytes_per_token=1000),
        kv_cache.CachedLayers(layers=2, bytes_per_token=1000, window=100),
        kv_cache.recurrent(6, state_bytes=50_000),
    ]

    assert kv_cache.bytes_per_token(cached) == 6000
    assert kv_cache.bytes_of_request(cached, 1000) == 4 * 1000 * 1000 + 2 * 100 * 1000 + 6 * 50_000
    assert kv_cache.bytes_of_request(cached, 33, tokens_per_block=32) == 6 * 64 * 1000 + 6 * 50_000


@given(tokens=st.integers(1, 200_000), pool=st.integers(0, 1 << 36))
def test_the_longest_request_fits_and_the_next_token_does_not(tokens, pool):
    cached = kv_cache.of_model(MISTRAL_7B)

    found = kv_cache.longest_request(cached, pool, at_most=tokens, tokens_per_block=32)

    assert kv_cache.bytes_of_request(cached, found, tokens_per_block=32) <= pool or found == 0
    if found < tokens:
        assert kv_cache.bytes_of_request(cached, found + 1, tokens_per_block=32) > pool
