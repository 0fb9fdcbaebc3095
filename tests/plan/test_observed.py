"""A server's boot log and metrics are read, and laid beside the plan."""

from toolkit.plan import observed

MIB, GIB = 1 << 20, 1 << 30
#: Lines as TensorRT-LLM writes them, with other figures than the published examples.
ENGINE_LOG = """\
[TensorRT-LLM][INFO] TRTGptModel maxBatchSize: 64
[TensorRT-LLM][INFO] TRTGptModel maxNumTokens: 4096
[TensorRT-LLM][INFO] Loaded engine size: 5500 MiB
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 400.50 MiB for execution context memory.
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 40.00 MB GPU memory for runtime buffers.
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.25 GB GPU memory for decoder.
[TensorRT-LLM][INFO] Memory usage when calculating max tokens in paged kv cache: total: 19.50 GiB, available: 12.80 GiB
[TensorRT-LLM][INFO] Number of blocks in KV cache primary pool: 2944
[TensorRT-LLM][INFO] Number of tokens per block: 32.
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 11.50 GiB for max tokens in paged KV cache (94208).
"""
LLM_API_LOG = """\
[07/24/2025-08:13:02] [TRT-LLM] [I] Rank 0 uses 8.46 GB for model weights.
[TensorRT-LLM][INFO] Max KV cache blocks per sequence: 65, tokens per block=32, primary blocks=1000, secondary blocks=0
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 3.90625 GiB for max tokens in paged KV cache (32000).
"""


def test_an_engines_boot_log_is_read():
    assert observed.of_log(ENGINE_LOG) == {
        "weights": 5500 * MIB,
        "activations": 400.5 * MIB,
        "runtime_buffers": 40 * MIB,
        "decoder": 256 * MIB,
        "total": 19.5 * GIB,
        "kv_cache": 11.5 * GIB,
        "kv_tokens": 94_208,
        "kv_blocks": 2944,
        "tokens_per_block": 32,
        "max_batch_size": 64,
        "max_num_tokens": 4096,
        "bytes_per_token": 131_072,
    }


def test_the_llm_apis_boot_log_is_read():
    found = observed.of_log(LLM_API_LOG)

    assert found == {
        "weights": 8.46 * GIB,
        "kv_cache": 3.90625 * GIB,
        "kv_tokens": 32_000,
        "kv_blocks": 1000,
        "tokens_per_block": 32,
        "bytes_per_token": 131_072,
    }


def test_of_several_ranks_the_fullest_counts():
    log = "Loaded engine size: 3122 MiB\nLoaded engine size: 3404 MiB\n"

    assert observed.of_log(log) == {"weights": 3404 * MIB}


def test_a_log_that_says_nothing_gives_nothing():
    assert observed.of_log("I0917 14:37:10 model_lifecycle.cc:472] loading: tensorrt_llm:1") == {}


def test_what_was_off_is_named_with_what_it_means():
    planned = {"weights": 100.0, "kv_blocks": 1000, "max_batch_size": 64, "decoder": 10}
    rows = observed.compared(planned, {"weights": 105.0, "kv_blocks": 700, "max_batch_size": 64})

    assert [(row.what, round(row.off, 3), row.is_off) for row in rows] == [
        ("weights", 0.05, False),
        ("kv_blocks", -0.3, True),
        ("max_batch_size", 0.0, False),
    ]
    assert rows[1].meaning == "follows from the KV cache and its tokens a block"


def test_a_few_megabytes_of_a_small_buffer_are_not_worth_a_word():
    planned = {"runtime_buffers": 30.0 * MIB, "activations": 300.0 * MIB}
    rows = observed.compared(planned, {"runtime_buffers": 20.0 * MIB, "activations": 250.0 * MIB})

    assert [row.is_off for row in rows] == [False, True]


def test_metrics_say_blocks_and_the_cpu_engines_memory():
    blocks, memory = {"max": 512.0, "tokens_per": 32.0, "used": 3.0}, {"cpu": 2e9, "gpu": 0.0}

    assert observed.of_metrics(blocks, memory, is_cpu=True) == {
        "kv_blocks": 512.0,
        "tokens_per_block": 32.0,
        "process": 2e9,
    }
    assert "process" not in observed.of_metrics(blocks, memory, is_cpu=False)


def test_a_size_that_is_no_number_is_passed_over():
    assert observed.of_log("Loaded engine size: ... MiB\nLoaded engine size: 1.5 GiB\n") == {"weights": 1.5 * (1 << 30)}
