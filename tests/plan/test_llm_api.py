"""What model.yaml is told, and what of an engine goes over to it."""

import pytest

from tests.plan.test_build_flags import CHAT, SQL, TEXT, planned
from tests.plan.test_plan import LLAMA_8B
from toolkit import gpus, plan, quant, releases
from toolkit.errors import PlanInfeasible, UnknownName, UsageError
from toolkit.plan import migration
from toolkit.specs import BuildPlan, Sharding, from_json, to_json


def keys_of(gpu="h100-sxm", recipe="fp8", *, tag="26.07", ranks=None, **asked):
    ranks = ranks or Sharding()
    target = plan.Target(gpu=gpus.get(gpu), flow="llmapi", **releases.facts_of(releases.get(tag)))
    stored = plan.AskedCheckpoint(layout="hf")
    converted = plan.conversion(LLAMA_8B, quant.get(recipe), asked=stored, calibration=TEXT)
    limits = plan.Asked(max_batch_size=64, max_seq_len=4096, sharding=ranks, engine=plan.AskedEngine(**asked))
    made = plan.make(converted, target, limits, recipes=quant.catalogue())
    assert all(key.reason for key in made.build_flags)
    return {key.name: key.value for key in made.build_flags}


def test_the_whole_of_what_a_model_is_started_with():
    assert keys_of() == {
        "tensor_parallel_size": "1",
        "pipeline_parallel_size": "1",
        "max_batch_size": "64",
        "max_num_tokens": "4096",
        "max_seq_len": "4096",
        "enable_chunked_prefill": "true",
        "kv_cache_config.enable_block_reuse": "true",
        "kv_cache_config.free_gpu_memory_fraction": "0.9",
        "scheduler_config.capacity_scheduler_policy": "GUARANTEED_NO_EVICT",
        "cuda_graph_config.max_batch_size": "64",
        "cuda_graph_config.enable_padding": "true",
    }


def test_ranks_and_adapters_are_keys():
    keys = keys_of(ranks=Sharding(tp=4, pp=2), adapters=(SQL, CHAT))

    assert (keys["tensor_parallel_size"], keys["pipeline_parallel_size"]) == ("4", "2")
    assert keys["lora_config.lora_dir"] == "lora/sql lora/chat"
    assert keys["lora_config.lora_target_modules"] == "attn_q attn_v attn_dense mlp_h_to_4h"
    assert (keys["enable_lora"], keys["lora_config.max_lora_rank"]) == ("true", "32")


def test_groups_that_ranks_would_cut_are_refused_though_the_file_is_whole():
    with pytest.raises(PlanInfeasible, match=r"--tp 3 does not divide the model's 32 attention heads"):
        keys_of(ranks=Sharding(tp=3))
    with pytest.raises(
        PlanInfeasible, match="--group-size 128 does not divide mlp.proj on each of 32 ranks's K of 448"
    ):
        keys_of("a4500", "int4", ranks=Sharding(tp=32))


def test_a_key_that_was_set_is_taken_when_the_release_has_it():
    assert (
        keys_of(set_flags=(("kv_cache_config.host_cache_size", "1024"),))["kv_cache_config.host_cache_size"] == "1024"
    )
    assert keys_of(set_flags=(("kv_cache_config.dtype", "fp8"),))["kv_cache_config.dtype"] == "fp8"
    with pytest.raises(UnknownName, match=r"no key of the LLM API 1\.0 that trtk writes named 'kv_cache_config.dtype'"):
        keys_of(tag="25.10", set_flags=(("kv_cache_config.dtype", "fp8"),))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kv_cache_config.free_gpu_memory_fraction", "1.5"),
        ("kv_cache_config.enable_block_reuse", "yes"),
        ("cuda_graph_config.max_batch_size", "-1"),
        ("guided_decoding_backend", "outlines"),
        ("model", "/elsewhere"),
        ("triton_config.decoupled", "false"),
        ("lora_config.lora_dir", "/elsewhere"),
        ("tensor_parallel_size", "2"),
    ],
)
def test_a_key_with_a_wrong_value_or_an_owner_is_a_usage_error(name, value):
    with pytest.raises(UsageError) as caught:
        keys_of(set_flags=((name, value),))
    assert caught.value.hint


@pytest.mark.parametrize("asked", [{"speculative": "lookahead_decoding"}, {"logits": "all"}, {"workers": 2}])
def test_what_is_compiled_into_an_engine_is_refused(asked):
    with pytest.raises(PlanInfeasible, match="is built into a compiled engine") as caught:
        keys_of(**asked)
    assert caught.value.hint.endswith("or try --flow engine.")


def moved(old: BuildPlan, *dropped: str) -> migration.Migration:
    assert from_json(BuildPlan, to_json(old)) == old  # as a manifest keeps it
    return migration.of(old, dropped=dropped)


def test_an_engine_goes_over_with_its_limits_ranks_and_adapters():
    old = planned("h100-sxm", "fp8", tp=2, pp=2, adapters=(SQL,), max_lora_rank=64)
    new = moved(old)

    assert (new.asked.max_batch_size, new.asked.max_seq_len) == (old.limits.max_batch_size, 2048)
    assert new.asked.sharding == Sharding(tp=2, pp=2)
    assert (new.asked.engine.adapters, new.asked.engine.max_lora_rank) == ((SQL,), 64)
    assert (new.checkpoint.layout, new.checkpoint.kv_cache) == ("hf", "fp8")
    assert [choice.name for choice in new.left] == ["lora_weights", "tensorrt_llm_bls"]
    assert new.left[0].reason == "an adapter is chosen by lora_task_id (1 sql); weights in a request are refused"


@pytest.mark.parametrize(
    ("option", "value", "changed"),
    [
        ("speculative", "lookahead_decoding", {"speculative": "lookahead_decoding"}),
        ("logits", "generation", {"logits": "generation"}),
        ("kv-cache", "int8", {"kv_cache": "int8"}),
    ],
)
def test_what_somebody_would_miss_is_left_behind_only_when_it_is_named(option, value, changed):
    old = planned(**changed)

    with pytest.raises(PlanInfeasible, match=f"^{option} {value} of the engine cannot go over") as caught:
        moved(old)
    assert caught.value.hint == f"Leave it behind with --drop {option}."
    assert [choice.name for choice in moved(old, option).left] == [option, "tensorrt_llm_bls"]
    assert moved(old, option).checkpoint.kv_cache == "none"


def test_flags_that_were_set_by_hand_are_listed():
    left = moved(planned(set_flags=(("tokens_per_block", "64"),))).left

    assert [(choice.name, choice.value) for choice in left] == [
        ("tokens_per_block", "64"),
        ("tensorrt_llm_bls", "model"),
    ]


def test_an_engine_without_kv_reuse_goes_over_without_it():
    old = planned(set_flags=(("use_paged_context_fmha", "disable"),))

    set_flags = moved(old).asked.engine.set_flags

    assert set_flags == (("kv_cache_config.enable_block_reuse", "false"), ("enable_chunked_prefill", "false"))
    assert moved(planned()).asked.engine.set_flags == ()
