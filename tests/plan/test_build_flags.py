"""The flags of trtllm-build that plans call for, against the builder's own rules, typed from its source."""

import dataclasses

import pytest

from tests.plan.test_plan import LLAMA2_7B, LLAMA_8B
from toolkit import gpus, plan, quant, releases
from toolkit.engine.toolchains import trtllm
from toolkit.errors import PlanInfeasible, UnknownName, UsageError
from toolkit.plan import engine_options
from toolkit.specs import Adapter, CalibrationSpec, MoeSpec, Sharding

TEXT = CalibrationSpec(source="self", samples=4, length=32)
LLAMA_405B = dataclasses.replace(
    LLAMA_8B, hidden_size=16384, num_layers=126, num_heads=128, num_kv_heads=8, intermediate_size=53248
)
MIXTRAL = dataclasses.replace(
    LLAMA_8B,
    architecture="MixtralForCausalLM",
    num_layers=4,
    moe=MoeSpec(num_experts=8, top_k=2, intermediate_size=14336),
)
SQL = Adapter(name="sql", path="/a/sql", sha256="0" * 64, rank=16, modules=("q_proj", "v_proj"))
CHAT = dataclasses.replace(SQL, name="chat", path="/a/chat", rank=32, modules=("gate_proj", "o_proj"))


def planned(gpu="a4500", recipe="int4", model=LLAMA_8B, *, kv_cache="auto", tag="26.07", tp=1, pp=1, seq=2048, **asked):
    sharding = Sharding(tp=tp, pp=pp)
    stored = plan.AskedCheckpoint(kv_cache=kv_cache, sharding=sharding)
    converted = plan.conversion(model, quant.get(recipe), asked=stored, calibration=TEXT)
    target = plan.Target(gpu=gpus.get(gpu), flow="engine", **releases.facts_of(releases.get(tag)))
    engine = plan.AskedEngine(**asked)
    limits = plan.Asked(max_seq_len=seq, sharding=sharding, engine=engine)
    return plan.make(converted, target, limits, recipes=quant.catalogue())


def flags_of(*arguments, **options):
    return {flag.name: flag.value for flag in planned(*arguments, **options).build_flags}


def test_the_whole_line_of_llama_8b_in_int4_on_an_a4500():
    made = planned()

    line = trtllm.command(made, checkpoint="/c", output="/o", timing_cache="/t")

    batch = str(made.limits.max_batch_size)
    assert line == [
        *("trtllm-build", "--checkpoint_dir", "/c", "--output_dir", "/o"),
        *("--input_timing_cache", "/t", "--output_timing_cache", "/t"),
        *("--max_batch_size", batch, "--max_seq_len", "2048", "--max_num_tokens", "2048", "--max_beam_width", "1"),
        *("--multiple_profiles", "disable", "--opt_num_tokens", batch),
        *("--gpt_attention_plugin", "auto", "--gemm_plugin", "float16", "--use_fused_mlp", "disable"),
        *("--kv_cache_type", "paged", "--tokens_per_block", "32", "--remove_input_padding", "enable"),
        *("--context_fmha", "enable", "--use_paged_context_fmha", "enable", "--use_fp8_context_fmha", "disable"),
        *("--workers", "1"),
    ]


#: What the builder itself would do, from build() in builder.py: recipe, card, KV cache → paged and FP8 context FMHA.
ATTENTION = [
    ("fp16", "a4500", "none", "enable", "disable"),
    ("int4", "a4500", "int8", "disable", "disable"),
    ("int4", "l4", "fp8", "disable", "disable"),
    ("fp8", "l4", "none", "enable", "disable"),
    ("fp8", "l4", "fp8", "enable", "enable"),
    ("w4a8_awq", "h100-sxm", "fp8", "enable", "enable"),
    ("nvfp4", "b200", "fp8", "enable", "enable"),
    ("fp8_rowwise", "h100-sxm", "none", "enable", "disable"),
    ("fp8_rowwise", "h100-sxm", "fp8", "disable", "disable"),
]


@pytest.mark.parametrize(("recipe", "gpu", "kv_cache", "paged", "fp8"), ATTENTION)
def test_attention_is_what_the_builder_would_settle_on_with_a_warning(recipe, gpu, kv_cache, paged, fp8):
    flags = flags_of(gpu, recipe, kv_cache=kv_cache)

    assert (flags["use_paged_context_fmha"], flags["use_fp8_context_fmha"]) == (paged, fp8)


@pytest.mark.parametrize(
    ("recipe", "gpu", "gemm", "fused", "profiles"),
    [
        ("fp16", "a4500", "float16", "enable", "disable"),
        ("bf16", "a4500", "bfloat16", "enable", "disable"),
        ("int8", "a4500", "float16", "disable", "disable"),
        ("int8_sq", "a4500", "float16", "disable", "disable"),
        ("fp8", "l4", "disable", "enable", "enable"),
        ("w4a8_awq", "l4", "float16", "disable", "disable"),
        ("nvfp4", "b200", "nvfp4", "disable", "disable"),
    ],
)
def test_kernels_follow_the_recipe(recipe, gpu, gemm, fused, profiles):
    flags = flags_of(gpu, recipe, seq=512)

    assert (flags["gemm_plugin"], flags["use_fused_mlp"], flags["multiple_profiles"]) == (gemm, fused, profiles)
    assert ("opt_num_tokens" in flags) == (profiles == "disable")
    assert ("norm_quant_fusion" in flags) == (recipe == "nvfp4")


def test_ranks_fuse_what_their_architecture_and_their_links_allow():
    two = flags_of("h100-sxm", "fp8", tp=2)
    without_nvlink = flags_of("l4", "fp8", tp=2)
    gemma = flags_of("h100-sxm", "fp8", model=dataclasses.replace(LLAMA_8B, architecture="Qwen2ForCausalLM"), tp=2)

    assert (two["reduce_fusion"], two["user_buffer"], two["nccl_plugin"], two["workers"]) == (
        "enable",
        "enable",
        "auto",
        "2",
    )
    assert without_nvlink["reduce_fusion"] == "enable"
    assert "user_buffer" not in without_nvlink
    assert gemma["reduce_fusion"] == "disable"
    assert "nccl_plugin" not in flags_of("h100-sxm", "fp8")


def test_mixtral_gets_the_experts_plugin_and_scatters_between_stages():
    flags = flags_of("h100-sxm", "fp8", model=MIXTRAL, tp=2, pp=2)

    assert (flags["moe_plugin"], flags["pp_reduce_scatter"], flags["workers"]) == ("auto", "enable", "4")
    assert "pp_reduce_scatter" not in flags_of("h100-sxm", "fp8", model=MIXTRAL, tp=4)
    assert "moe_plugin" not in flags_of()


def test_ranks_share_the_memory():
    one, two, stages = planned(model=LLAMA2_7B), planned(model=LLAMA2_7B, tp=2), planned(model=LLAMA2_7B, pp=2)

    assert (two.limits.tp, stages.limits.pp) == (2, 2)
    assert two.kv_bytes_per_token == stages.kv_bytes_per_token == one.kv_bytes_per_token // 2
    assert 0.49 < two.weights_bytes / one.weights_bytes < 0.51
    assert 0.45 < stages.weights_bytes / one.weights_bytes < 0.55
    assert two.kv_bytes > one.kv_bytes


def test_a_model_that_one_card_cannot_hold_is_told_that_two_can():
    with pytest.raises(PlanInfeasible) as caught:
        planned("a4000", "fp16")
    assert caught.value.hint == "Try --quant int8 or --tp 2."
    with pytest.raises(PlanInfeasible) as caught:
        planned("a4000", "int4", model=LLAMA_405B)
    assert caught.value.hint == "Try --tp 16."
    assert planned("a4000", "int4", model=LLAMA_405B, tp=16).limits.tp == 16
    assert planned("a4000", "fp16", tp=2).limits.tp == 2


def test_awq_groups_are_those_that_every_rank_holds_whole():
    """Issue 1636: 11008 / 4 = 2752 is no multiple of 128, and is one of 64."""
    made = planned("h100-sxm", "int4", model=LLAMA2_7B, tp=4)

    assert made.conversion.group_size == 64
    with pytest.raises(
        PlanInfeasible, match=r"--group-size 128 does not divide mlp\.proj on each of 4 ranks's K of 2752"
    ):
        plan.conversion(
            LLAMA2_7B,
            quant.get("int4"),
            asked=plan.AskedCheckpoint(group_size=128, sharding=Sharding(tp=4)),
            calibration=TEXT,
        )


def test_w4a8_has_one_group_size_so_some_ranks_are_refused():
    with pytest.raises(PlanInfeasible, match=r"w4a8_awq needs a group size of 128 that divides every input") as caught:
        planned("h100-sxm", "w4a8_awq", model=LLAMA2_7B, tp=4)
    assert caught.value.hint == "Try --quant int8."
    assert planned("h100-sxm", "int8", model=LLAMA2_7B, tp=4).limits.tp == 4


def test_adapters_become_four_flags_with_folders_below_the_checkpoint():
    made = planned(adapters=(SQL, CHAT))
    flags = {flag.name: flag.value for flag in made.build_flags}
    line = trtllm.command(made, checkpoint="/c", output="/o", timing_cache="/t")

    assert flags["lora_plugin"] == "auto"
    assert flags["max_lora_rank"] == "32"
    assert line[line.index("--lora_dir") :][:3] == ["--lora_dir", "/c/lora/sql", "/c/lora/chat"]
    where = line.index("--lora_target_modules")
    assert line[where + 1 : where + 5] == ["attn_q", "attn_v", "attn_dense", "mlp_h_to_4h"]
    assert made.plan_id != planned().plan_id
    assert made.plan_id == planned(adapters=(dataclasses.replace(SQL, path="/elsewhere"), CHAT)).plan_id


def test_lookahead_takes_the_draft_length_of_its_windows():
    flags = flags_of(speculative="lookahead_decoding")

    # (w - 1 + v)(n - 1) + n - 2 of w = n = v = 7
    assert (flags["speculative_decoding_mode"], flags["max_draft_len"]) == ("lookahead_decoding", "83")
    external = flags_of(speculative="draft_tokens_external", max_draft_len=4)
    assert (external["speculative_decoding_mode"], external["max_draft_len"]) == ("draft_tokens_external", "4")


def test_a_switch_has_no_value_on_the_command_line():
    made = planned(logits="context")

    line = trtllm.command(made, checkpoint="/c", output="/o", timing_cache="/t")

    assert line[-1] == "--gather_context_logits"


REFUSED = {
    "medusa": (
        {"speculative": "medusa"},
        "--speculative medusa needs a checkpoint with such heads (MedusaForCausalLM)",
    ),
    "eagle": ({"speculative": "eagle"}, "--speculative eagle needs a checkpoint with such heads (EagleForCausalLM)"),
    "draft": ({"max_draft_len": 5}, "--max-draft-len 5 is of a speculative mode, and none was asked for."),
    "rank": ({"adapters": (CHAT,), "max_lora_rank": 8}, "--max-lora-rank 8 is below the rank 32 of the adapter chat."),
    "no adapter": ({"max_lora_rank": 8}, "--max-lora-rank 8 is of LoRA adapters, and none was given."),
    "module": (
        {"adapters": (dataclasses.replace(SQL, modules=("lm_head",)),)},
        "The adapter sql changes lm_head, which TensorRT-LLM has no LoRA for here.",
    ),
    "logits": (
        {"speculative": "lookahead_decoding", "logits": "context"},
        "--gather-logits context and --speculative lookahead_decoding exclude one another",
    ),
}


@pytest.mark.parametrize(("asked", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_an_engine_cannot_have_is_refused_with_a_way_out(asked, message):
    with pytest.raises(PlanInfeasible) as caught:
        planned(**asked)
    assert str(caught.value).startswith(message)
    assert caught.value.hint


def test_nvfp4_engines_are_for_the_architectures_that_are_listed():
    qwen = dataclasses.replace(LLAMA_8B, architecture="Qwen2ForCausalLM")

    with pytest.raises(PlanInfeasible, match="is not one of the architectures that TensorRT-LLM lists NVFP4") as caught:
        planned("b200", "nvfp4", model=qwen)
    assert caught.value.hint == "Try --quant fp8 or --quant bf16 on b200."


def test_a_flag_that_was_set_takes_the_place_of_the_plans_own():
    made = planned(set_flags=(("tokens_per_block", "64"), ("gemm_swiglu_plugin", "disable"), ("monitor_memory", "")))
    flags = {flag.name: flag for flag in made.build_flags}

    assert (flags["tokens_per_block"].value, flags["monitor_memory"].value) == ("64", "")
    assert flags["tokens_per_block"].reason == (
        "as asked with --set-flag; the plan had 32: prefixes are reused by whole blocks; smaller ones cost bookkeeping"
    )
    assert "opt_num_tokens" not in flags_of(set_flags=(("multiple_profiles", "enable"),))
    assert flags_of("l4", "fp8", set_flags=(("opt_num_tokens", "9"),))["multiple_profiles"] == "disable"


WRONG_FLAGS = {
    "another release's": (
        "auto_parallel",
        "2",
        UnknownName,
        "There is no flag of trtllm-build 1.2 named 'auto_parallel'",
    ),
    "misspelt": ("use_fuse_mlp", "enable", UnknownName, "There is no flag of trtllm-build 1.2 named 'use_fuse_mlp'"),
    "choice": ("gemm_plugin", "int8", UsageError, "--gemm_plugin cannot be 'int8'."),
    "number": (
        "tokens_per_block",
        "many",
        UsageError,
        "--tokens_per_block takes a whole number, and 'many' was given.",
    ),
    "switch": ("monitor_memory", "yes", UsageError, "--monitor_memory takes no value, and 'yes' was given."),
    "zero": ("tokens_per_block", "0", UsageError, "--tokens_per_block takes a whole number, and '0' was given."),
    "blocks": ("tokens_per_block", "48", UsageError, "--tokens_per_block cannot be 48."),
    "slabs": ("kv_cache_type", "continuous", UsageError, "--kv_cache_type continuous compiles an engine that cannot"),
    "padding": ("remove_input_padding", "disable", UsageError, "--remove_input_padding disable compiles an engine"),
    "folder": ("output_dir", "/x", UsageError, "--set-flag output_dir: trtk sets it itself."),
    "limit": ("max_batch_size", "4", UsageError, "--set-flag max_batch_size: other files must say the same"),
}


@pytest.mark.parametrize(("name", "value", "kind", "message"), WRONG_FLAGS.values(), ids=WRONG_FLAGS.keys())
def test_a_flag_that_the_release_does_not_take_is_a_usage_error(name, value, kind, message):
    with pytest.raises(kind) as caught:
        planned(set_flags=((name, value),))
    assert str(caught.value).startswith(message)


def test_a_flag_of_the_release_is_taken_and_one_that_the_gpu_refuses_is_not():
    assert flags_of(tag="25.12", set_flags=(("auto_parallel", "1"),))["auto_parallel"] == "1"
    with pytest.raises(UsageError, match="trtllm-build refuses --gemm_swiglu_plugin fp8 on sm_100"):
        planned("b200", "fp8", set_flags=(("gemm_swiglu_plugin", "fp8"),))


def test_a_bundle_that_starts_on_another_kind_of_card_does_without_its_links():
    made = planned("h100-sxm", "fp8", tp=2)
    places = {"checkpoint": "/c", "output": "/o", "timing_cache": "/t"}

    own, other = trtllm.command(made, **places, sm=90), trtllm.command(made, **places, sm=89)

    assert own == trtllm.command(made, **places)
    where = own.index("--user_buffer")
    assert other == own[:where] + own[where + 2 :]


@pytest.mark.parametrize(("length", "size"), [(3, 2), (10, 2), (11, 3), (83, 7), (110, 7), (111, 8), (256, 11)])
def test_lookahead_uses_what_its_draft_tokens_hold(length, size):
    made = planned(speculative="lookahead_decoding", max_draft_len=length)

    told = engine_options.parameters(made.build_flags)

    assert told == {
        "decoding_mode": "lookahead",
        "lookahead_window_size": str(size),
        "lookahead_ngram_size": str(size),
        "lookahead_verification_set_size": str(size),
    }


def test_too_few_draft_tokens_to_look_ahead_are_refused():
    with pytest.raises(PlanInfeasible, match="--max-draft-len 2 is too short to look ahead") as caught:
        planned(speculative="lookahead_decoding", max_draft_len=2)
    assert caught.value.hint == "Try --max-draft-len 83."


def test_the_server_keeps_room_for_adapters_of_their_rank():
    assert engine_options.parameters(planned(adapters=(CHAT,)).build_flags) == {"lora_cache_max_adapter_size": "32"}
    assert engine_options.parameters(planned().build_flags) == {}
