"""How a checkpoint may be stored: what cannot be is refused by the option's name, before anything is fetched."""

import dataclasses

import pytest

from tests.plan.test_plan import CALIBRATION, LLAMA_8B
from toolkit import plan, quant
from toolkit.errors import PlanInfeasible
from toolkit.plan import AskedCheckpoint
from toolkit.specs import MoeSpec, Sharding

MIXTRAL = dataclasses.replace(
    LLAMA_8B,
    architecture="MixtralForCausalLM",
    moe=MoeSpec(num_experts=8, top_k=2, intermediate_size=14336),
)
GEMMA = dataclasses.replace(LLAMA_8B, architecture="GemmaForCausalLM", vocab_size=256001)


def converted(model, recipe, **asked):
    return plan.conversion(model, quant.get(recipe), asked=AskedCheckpoint(**asked), calibration=CALIBRATION)


@pytest.mark.parametrize(
    ("model", "recipe", "sharding", "reason"),
    [
        (LLAMA_8B, "fp16", {"tp": 3}, "--tp 3 does not divide the model's 32 attention heads."),
        (
            dataclasses.replace(LLAMA_8B, num_heads=48, num_kv_heads=6),
            "fp16",
            {"tp": 4},
            "--tp 4 and the model's 6 KV heads do not divide one another.",
        ),
        (
            dataclasses.replace(LLAMA_8B, num_heads=24, num_kv_heads=8),
            "fp16",
            {"tp": 12},
            "--tp 12 and the model's 8 KV heads do not divide one another.",
        ),
        (
            dataclasses.replace(LLAMA_8B, intermediate_size=11009),
            "fp16",
            {"tp": 2},
            "--tp 2 does not divide the model's 11009 intermediate size.",
        ),
        (LLAMA_8B, "fp16", {"pp": 33}, "--pp 33 is more than the model's 32 layers."),
        (LLAMA_8B, "fp16", {"tp": 2, "ep": 2}, "--ep 2 divides experts, and LlamaForCausalLM has none."),
        (
            MIXTRAL,
            "fp16",
            {"tp": 2, "ep": 4},
            "--ep 4 does not divide --tp 2: experts are divided among the tensor-parallel ranks.",
        ),
        (MIXTRAL, "fp16", {"tp": 16, "ep": 16}, "--ep 16 does not divide the model's 8 experts."),
        (GEMMA, "fp16", {"tp": 2}, "--tp 2 does not divide the model's 256001 vocabulary entries."),
    ],
)
def test_ranks_with_unequal_shares_are_refused(model, recipe, sharding, reason):
    with pytest.raises(PlanInfeasible) as caught:
        converted(model, recipe, sharding=Sharding(**sharding))

    assert str(caught.value) == reason
    assert caught.value.hint


@pytest.mark.parametrize(
    ("model", "sharding"),
    [
        (LLAMA_8B, {"tp": 2, "pp": 4}),
        (LLAMA_8B, {"tp": 16}),  # two ranks share a KV head
        (LLAMA_8B, {"pp": 3}),  # stages of 11, 11 and 10 layers
        (MIXTRAL, {"tp": 8, "ep": 4}),
        (MIXTRAL, {"tp": 8, "ep": 8}),
    ],
)
def test_ranks_with_equal_shares_are_planned(model, sharding):
    assert converted(model, "fp8", sharding=Sharding(**sharding)).sharding == Sharding(**sharding)


def test_groups_must_fit_into_each_ranks_inputs():
    """14336 / 16 = 896 = 7 x 128, but 11008 / 8 = 1376 = 43 x 32."""
    assert converted(LLAMA_8B, "int4", sharding=Sharding(tp=16)).group_size == 128
    model = dataclasses.replace(LLAMA_8B, intermediate_size=11008)
    found = converted(model, "int4", sharding=Sharding(tp=8))

    assert found.group_size == 32
    assert found.choices[0].reason == (
        "128 does not divide mlp.proj on each of 8 ranks's K of 1376; 32 is the largest that does"
    )
    with pytest.raises(
        PlanInfeasible, match="--group-size 128 does not divide mlp.proj on each of 8 ranks's K of 1376"
    ):
        converted(model, "int4", group_size=128, sharding=Sharding(tp=8))


def test_the_unified_layout_has_no_ranks():
    with pytest.raises(PlanInfeasible, match="--tp, --pp and --ep cannot be meant with --format hf"):
        converted(LLAMA_8B, "fp8", layout="hf", sharding=Sharding(tp=2))


def test_block_fp8_is_of_the_unified_layout_and_of_whole_blocks():
    with pytest.raises(PlanInfeasible, match="--format trtllm cannot hold it") as caught:
        converted(LLAMA_8B, "fp8_block")
    assert caught.value.hint == "Try --format hf."
    with pytest.raises(PlanInfeasible, match=r"loaders fuse linears by whole blocks; attention.k has 192 rows"):
        converted(dataclasses.replace(LLAMA_8B, num_kv_heads=3, head_dim=64, num_heads=30), "fp8_block", layout="hf")
    assert converted(LLAMA_8B, "fp8_block", layout="hf").layout == "hf"


def test_smoothquant_in_the_unified_layout_is_written_with_a_warning():
    choices = {choice.name: choice.reason for choice in converted(LLAMA_8B, "int8_sq", layout="hf").choices}

    assert choices["format"] == "as ModelOpt writes it; no loader of W8A8_SQ_PER_CHANNEL in this layout is known"


@pytest.mark.parametrize(
    ("recipe", "layout", "asked", "found"),
    [
        ("fp16", "trtllm", "auto", None),
        ("int4", "trtllm", "auto", None),
        ("int8_sq", "trtllm", "auto", None),
        ("fp8", "trtllm", "auto", "fp8"),
        ("nvfp4", "hf", "auto", "fp8"),
        ("fp8", "trtllm", "none", None),
        ("int4_rtn", "trtllm", "int8", "int8"),
        ("fp8_block", "hf", "auto", None),
    ],
)
def test_the_kv_cache_follows_the_activations_unless_it_is_said(recipe, layout, asked, found):
    made = converted(LLAMA_8B, recipe, layout=layout, kv_cache=asked)

    assert made.kv_cache == found
    assert [choice.value for choice in made.choices if choice.name == "kv_cache"] == [found or "none"]


def test_kv_caches_that_nobody_would_read_are_refused():
    with pytest.raises(PlanInfeasible, match="--kv-cache int8 is of the engine flow"):
        converted(LLAMA_8B, "int4_rtn", layout="hf", kv_cache="int8")
    with pytest.raises(PlanInfeasible, match="no place for a KV cache type"):
        converted(LLAMA_8B, "fp8_block", layout="hf", kv_cache="fp8")


def test_int8_keys_and_values_need_calibration_and_fp8_ones_do_not():
    asked = AskedCheckpoint(kv_cache="int8")
    with pytest.raises(PlanInfeasible, match="--kv-cache int8 needs calibration text"):
        plan.conversion(LLAMA_8B, quant.get("int4_rtn"), asked=asked)
    assert converted(LLAMA_8B, "int4_rtn", kv_cache="int8").calibration == CALIBRATION
    assert converted(LLAMA_8B, "int4_rtn", kv_cache="fp8").calibration is None
