"""The time model: what must hold for any card and load, and what it says of servers that were measured."""

import dataclasses
import functools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.test_counts import DEEPSEEK_V3
from toolkit import gpus, models, quant, speeds
from toolkit.plan import speed
from toolkit.plan.speed.shapes import shape_of
from toolkit.specs import CALIBRATED, EXTRAPOLATED, FITTED, Calibration, Limits, ServerSetup, Speculation, Workload

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
MIXTRAL = {
    **LLAMA,
    "architectures": ["MixtralForCausalLM"],
    "vocab_size": 32000,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
CARDS = [gpu for gpu in gpus.catalogue() if not gpu.is_cpu]
RECIPES = [quant.get(name) for name in ("fp16", "int8", "int4", "fp8", "nvfp4", "int8_sq")]

cards, recipes = st.sampled_from(CARDS), st.sampled_from(RECIPES)
lengths = st.tuples(st.integers(1, 8000), st.integers(2, 4000))
growth = st.floats(1.0, 4.0)


@functools.cache
def model(name="llama"):
    config = {"llama": LLAMA, "mixtral": MIXTRAL}[name]
    return models.family_of(config["architectures"][0]).describe(config)


def setup(gpu="h100-sxm", recipe="fp8", kv=400_000, spec=None, **limits):
    found = gpus.get(gpu) if isinstance(gpu, str) else gpu
    chosen = {"max_batch_size": 256, "max_seq_len": 16384, "max_num_tokens": 8192, **limits}
    return ServerSetup(
        model=spec or model(),
        gpu=found,
        recipe=quant.get(recipe) if isinstance(recipe, str) else recipe,
        limits=Limits(**chosen),
        kv_capacity_tokens=kv,
    )


def load(isl=1024, osl=256, **more):
    return Workload(isl=isl, osl=osl, isl_max=isl, osl_max=osl, **more)


def predict(server, workload, **more):
    return speed.predict(server, workload, constants=speeds.constants(), **more)


@given(cards, recipes, lengths, growth, st.integers(1, 300))
def test_a_faster_card_is_never_predicted_slower(gpu, recipe, length, factor, concurrency):
    faster = dataclasses.replace(
        gpu,
        bandwidth_gb_per_s=gpu.bandwidth_gb_per_s * factor,
        dense_tflops={name: rate * factor for name, rate in gpu.dense_tflops.items()},
        tdp_w=gpu.tdp_w,
    )
    workload = load(*length, concurrency=concurrency)
    slow, fast = (predict(setup(card, recipe), workload) for card in (gpu, faster))
    assert fast.output_tps.mid >= slow.output_tps.mid * 0.999999
    assert fast.ttft_ms.mid <= slow.ttft_ms.mid * 1.000001
    assert fast.tpot_ms.mid <= slow.tpot_ms.mid * 1.000001


@given(cards, recipes, lengths, st.integers(1, 250), st.integers(1, 250), st.sampled_from(["llama", "mixtral"]))
def test_more_requests_in_flight_never_lower_throughput(gpu, recipe, length, few, more, name):
    server = setup(gpu, recipe, spec=model(name))
    less, full = (predict(server, load(*length, concurrency=count)) for count in sorted((few, more)))
    assert full.output_tps.mid >= less.output_tps.mid * 0.999999
    assert full.batch >= less.batch


@given(cards, recipes, lengths, st.integers(1, 4000), st.integers(1, 250))
def test_a_longer_prompt_never_comes_sooner(gpu, recipe, length, longer, concurrency):
    isl, osl = length
    server = setup(gpu, recipe)
    short, long = (predict(server, load(tokens, osl, concurrency=concurrency)) for tokens in (isl, isl + longer))
    assert long.ttft_ms.mid >= short.ttft_ms.mid * 0.999999
    assert long.output_tps.mid <= short.output_tps.mid * 1.000001


@given(cards, recipes, st.one_of(lengths, st.tuples(st.integers(1, 8000), st.integers(1, 3))), st.integers(1, 300))
def test_every_interval_holds_its_middle_and_every_number_is_one(gpu, recipe, length, concurrency):
    said = predict(setup(gpu, recipe), load(*length, concurrency=concurrency))
    for found in (said.ttft_ms, said.tpot_ms, said.output_tps):
        assert 0 < found.low < found.mid < found.high < float("inf")
    assert said.bound_by in {"compute", "bandwidth", "kv_cache", "communication", "overhead", "batch_size"}


@given(cards, st.integers(1, 200), st.floats(0.0, 0.9), st.floats(0.0, 0.9))
def test_prompts_found_in_the_cache_cost_nothing_but_their_reading(gpu, concurrency, first, second):
    server = setup(gpu, "fp16")
    little, much = (
        predict(server, load(concurrency=concurrency, prefix_share=share)) for share in sorted((first, second))
    )
    assert much.output_tps.mid >= little.output_tps.mid * 0.999999
    assert much.ttft_ms.mid <= little.ttft_ms.mid * 1.000001


@settings(max_examples=50)
@given(cards, st.floats(0.1, 100.0), growth)
def test_a_higher_rate_is_served_until_it_is_too_high(gpu, rate, factor):
    server = setup(gpu, "fp16")
    most = predict(server, load()).output_tps.mid / 256
    said, busier = (predict(server, load(rate_rps=each)) for each in (rate, rate * factor))
    assert said.output_tps.mid == pytest.approx(256 * min(rate, most), rel=1e-6)
    assert busier.ttft_ms.mid >= said.ttft_ms.mid * 0.999
    assert busier.tpot_ms.mid >= said.tpot_ms.mid * 0.999


def test_an_open_loop_waits_longer_the_nearer_it_comes_to_the_top_and_a_minute_s_worth_beyond():
    server = setup(max_batch_size=16)
    most = predict(server, load()).output_tps.mid / 256
    half, near, beyond = (predict(server, load(rate_rps=share * most)) for share in (0.5, 0.98, 2.0))
    alike = predict(server, load(concurrency=round(near.batch)))
    assert near.ttft_ms.mid > alike.ttft_ms.mid + 20
    assert half.ttft_ms.mid < alike.ttft_ms.mid
    assert beyond.ttft_ms.mid == pytest.approx(30_000, rel=0.05)
    assert "Requests come faster than they can be served; the wait is that after a minute." in beyond.assumptions


def test_little_s_law_holds_between_the_three_numbers():
    said = predict(setup(kv=1e9), load(isl=700, osl=200, concurrency=64))
    request_s = (said.ttft_ms.mid + 199 * said.tpot_ms.mid) / 1000
    assert said.output_tps.mid / 200 * request_s == pytest.approx(64)


def test_one_request_alone_is_bound_by_the_memory_and_many_by_the_arithmetic():
    alone = predict(setup(kv=1e9), load(concurrency=1))
    many = predict(setup(kv=1e9), load(isl=4000, osl=50, concurrency=256))
    assert (alone.bound_by, many.bound_by) == ("bandwidth", "compute")
    # 8.0 GB of weights at 3,350 GB/s take 2.4 ms whatever is done.
    assert 2.5 < alone.tpot_ms.low < alone.tpot_ms.mid < 5


def test_where_the_cache_ends_requests_wait_and_the_limit_is_named():
    server = setup(kv=10 * 1280)
    inside, outside = (predict(server, load(concurrency=count)) for count in (10, 40))
    assert outside.bound_by == "kv_cache"
    assert outside.batch == 10
    assert outside.output_tps.mid == pytest.approx(inside.output_tps.mid)
    assert outside.ttft_ms.mid > 10 * inside.ttft_ms.mid
    assert "30 requests wait: kv_cache lets 10 in." in outside.assumptions
    assert predict(setup(max_batch_size=4), load(concurrency=40)).bound_by == "batch_size"


def test_a_batch_of_what_the_cache_holds_is_bound_by_the_cache():
    assert predict(setup(kv=10.5 * 1280, max_batch_size=10), load()).bound_by == "kv_cache"
    assert predict(setup(kv=11.5 * 1280, max_batch_size=10), load()).bound_by == "batch_size"


def test_over_pcie_pipelines_carry_more_than_ranks_of_a_layer():
    large = dataclasses.replace(model(), num_layers=80, hidden_size=8192, num_heads=64, intermediate_size=28672)
    ranks = predict(setup("l40s", spec=large, tp=4), load(concurrency=128))
    stages = predict(setup("l40s", spec=large, pp=4), load(concurrency=128))
    assert stages.output_tps.mid > 1.3 * ranks.output_tps.mid
    assert ranks.bound_by == "communication"
    assert any("PCIe" in sentence for sentence in ranks.assumptions)
    over_nvlink = predict(setup("h100-sxm", spec=large, tp=4), load(concurrency=128))
    assert over_nvlink.output_tps.mid > 3 * ranks.output_tps.mid


def test_a_mixture_s_lone_token_reads_two_experts_and_a_batch_all_eight():
    mixture = setup(spec=model("mixtral"), kv=1e9)
    estimate = speed.estimate(mixture, load(), constants=speeds.constants())
    assert estimate.line.shape.distinct_experts(1) == 2
    assert estimate.line.shape.distinct_experts(64) == pytest.approx(8, rel=1e-6)
    alone = predict(mixture, load(isl=8, osl=500, concurrency=1))
    # 12.9 G of 46.7 G parameters, so 3.9 ms at the card's whole bandwidth.
    assert 3.9 < alone.tpot_ms.mid < 7


def test_speculation_yields_its_accepted_tokens_while_memory_binds():
    workload = load(isl=64, osl=1000, concurrency=1)
    plain = predict(setup(), workload)
    drafted = dataclasses.replace(setup(), speculation=Speculation(draft_tokens=3, acceptance=0.7))
    accepted = 1 + 0.7 + 0.7**2 + 0.7**3
    assert predict(drafted, workload).output_tps.mid == pytest.approx(accepted * plain.output_tps.mid, rel=0.1)
    useless = dataclasses.replace(setup(), speculation=Speculation(draft_tokens=3, acceptance=0.0, draft_cost=0.1))
    assert predict(useless, workload).output_tps.mid < plain.output_tps.mid


def test_a_window_bounds_what_a_long_context_costs():
    windowed = dataclasses.replace(model(), sliding_window=1024, full_attention_layers=(0, 6, 12, 18, 24, 30))
    workload = load(isl=30_000, osl=500, concurrency=8)
    full, short = (predict(setup(spec=spec), workload) for spec in (model(), windowed))
    assert short.tpot_ms.mid < full.tpot_ms.mid
    assert short.ttft_ms.mid < full.ttft_ms.mid


def test_what_no_figure_stands_behind_is_called_extrapolated():
    assert predict(setup("h100-sxm", "fp8"), load()).provenance == FITTED
    assert predict(setup("a4500", "int4"), load()).provenance == EXTRAPOLATED
    assert predict(setup("b200", "nvfp4"), load()).provenance == FITTED
    assert predict(setup("b200", "int4"), load()).provenance == EXTRAPOLATED
    latent = models.shape_of("DeepseekV3ForCausalLM").describe(DEEPSEEK_V3)
    found = predict(setup("h200-sxm", "fp8", spec=latent, tp=8, ep=8), load())
    assert found.provenance == EXTRAPOLATED
    assert "No published figure of a deepseek is behind this; `trtk calibrate` helps." in found.assumptions
    assert found.output_tps.high / found.output_tps.mid > 1.28


def test_a_release_or_toolchain_without_figures_is_told_with_a_wider_interval():
    def width(version, engine):
        server = dataclasses.replace(setup(), tensorrt_llm=version, engine=engine)
        told = predict(server, load(concurrency=64)).output_tps
        return told.high / told.low

    assert width("0.17.0.post1", "trtllm") < width("0.18.0", "trtllm")
    assert width("1.2.1", "llmapi") < width("1.2.1", "trtllm")
    assert width("0.18.0", "trtllm") == pytest.approx(width("", ""))


def test_latent_attention_reads_one_vector_and_multiplies_it_for_every_head():
    """Eight ranks share the heads, and each reads the whole cache: long contexts cost arithmetic, not only memory."""
    latent = models.shape_of("DeepseekV3ForCausalLM").describe(DEEPSEEK_V3)
    shape = shape_of(setup("h200-sxm", "fp8", spec=latent, tp=8, ep=8))

    assert shape.read_bytes(1000) == 1000 * 61 * 576 * 2
    assert shape.latent_flops == 61 * 2 * 128 * (576 + 512) / 8
    assert shape.kv_elements == 0
    alone = shape_of(setup("h200-sxm", "fp8", spec=latent))
    # The paper's 37 thousand million active parameters, less embedding and head.
    assert alone.dense_parameters + alone.top_k * alone.expert_parameters == pytest.approx(37e9 - 2 * 0.93e9, rel=0.02)
    sure, unsure = (predict(setup(*pair), load()).output_tps for pair in (("h100-sxm", "fp8"), ("a4500", "int4")))
    assert unsure.high / unsure.mid > sure.high / sure.mid


def test_a_calibration_takes_the_place_of_what_was_fitted():
    own = Calibration(
        gpu="a4500", engine="trtllm", recipe="int4", model="m", compute_tflops=60.0, bandwidth_gb_per_s=576.0,
        step_ms=1.5, log_sd=0.05, points=(), date="2026-11-21",
    )  # fmt: skip
    server = setup("a4500", "int4", kv=40_000)
    said = predict(server, load(isl=16, osl=1000, concurrency=1), calibration=own)
    assert said.provenance == CALIBRATED
    # 6.98 G parameters in 4.125 bits + a 16-bit head of 525 M, at 576 GB/s; 1.5 ms; keys of about 500 tokens.
    weights_ms = (6.98e9 * (0.5 + 2 / 128) + 2 * 525e6) / 576e9 * 1e3
    assert weights_ms + 1.5 < said.tpot_ms.mid < 1.06 * (weights_ms + 1.5)


def test_three_thousand_predictions_take_less_than_their_share_of_three_seconds():
    pairs = [(gpu, recipe) for gpu in CARDS for recipe in RECIPES]
    began = time.process_time()
    for gpu, recipe in pairs:
        predict(setup(gpu, recipe), load(concurrency=32))
    assert (time.process_time() - began) / len(pairs) < 0.0015
