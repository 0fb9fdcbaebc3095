"""The flags of trtllm-build that a plan calls for, each with its reason; the ones a release does not have are left out.

What the builder would change by itself, with a warning in its log, is decided here instead, so that the repository says
the same as the engine. Source of those rules: build() in
https://github.com/NVIDIA/TensorRT-LLM/blob/v1.2.1/tensorrt_llm/builder.py, alike in 0.20.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.errors import PlanInfeasible
from toolkit.plan import engine_options, set_flags
from toolkit.plan.engine_options import AskedEngine
from toolkit.specs import MIXED_PRECISION, BuildTool, Choice, ConversionPlan, GpuSpec, Limits

ON, OFF = "enable", "disable"
#: Algorithms whose attention in prefill can be 8-bit.
FP8_ATTENTION = {"FP8", "W4A8_AWQ", "NVFP4"}
#: Algorithms whose gate and up projections the builder fuses; it stops at others.
FUSED_MLP = {None, "FP8", MIXED_PRECISION}
#: Architectures whose residual and norm are fused with the all-reduce before them.
REDUCE_FUSION = {"LlamaForCausalLM", "Gemma2ForCausalLM"}
TOKENS_PER_BLOCK = "32"


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the flags are chosen for."""

    gpu: GpuSpec
    converted: ConversionPlan
    limits: Limits
    asked: AskedEngine

    @property
    def algo(self) -> str | None:
        """TensorRT-LLM's name of the checkpoint's quantization."""
        return MIXED_PRECISION if self.converted.auto else self.converted.recipe.quant_algo

    @property
    def ranks(self) -> int:
        """How many engines are compiled: one for each rank."""
        return self.limits.tp * self.limits.pp


def choose(compiled: Compiled, tool: BuildTool) -> tuple[Choice, ...]:
    """Return flags (names without dashes) besides the folders and the timing cache."""
    asked, model = compiled.asked, compiled.converted.model
    speculative = engine_options.speculative_flags(model, asked)
    needed = (
        *speculative,
        *engine_options.lora_flags(asked),
        *engine_options.logits_flags(asked, speculative),
    )
    for flag in needed:
        if flag.name not in tool.flags:
            raise PlanInfeasible(
                f"trtllm-build {tool.name} has no --{flag.name}, which is needed: {flag.reason}.",
                hint="Try --release auto.",
            )
    chosen = (*_limits(compiled), *_kernels(compiled), *_attention(compiled), *_parallel(compiled), *needed)
    kept = tuple(flag for flag in chosen if flag.name in tool.flags)
    return set_flags.apply(kept, asked.set_flags, tool=tool, gpu=compiled.gpu)


def value_of(flags: tuple[Choice, ...], name: str) -> str | None:
    """Return the value of a flag, None where it was left to trtllm-build."""
    return next((flag.value for flag in flags if flag.name == name), None)


def _choices(*rows: tuple[str, str, str]) -> tuple[Choice, ...]:
    return tuple(Choice(name=name, value=value, reason=reason) for name, value, reason in rows)


def _limits(compiled: Compiled) -> tuple[Choice, ...]:
    limits = compiled.limits
    rows = [
        ("max_batch_size", str(limits.max_batch_size), "the plan's limit; decoder buffers grow with it"),
        ("max_seq_len", str(limits.max_seq_len), "the plan's limit, prompt and answer together"),
        ("max_num_tokens", str(limits.max_num_tokens), "the plan's limit; activation memory grows with it"),
        ("max_beam_width", "1", "sampling and greedy only; beams multiply the KV cache"),
    ]
    if compiled.algo == "FP8":
        reason = "without the GEMM plugin TensorRT picks kernels for each range of sizes; costs build time alone"
        rows.append(("multiple_profiles", ON, reason))
    else:
        typical = min(limits.max_batch_size, limits.max_num_tokens)
        rows.append(("multiple_profiles", OFF, "the GEMM plugin chooses its kernels at run time by itself"))
        rows.append(("opt_num_tokens", str(typical), "a step of decoding has one token of each request in flight"))
    return _choices(*rows)


def _kernels(compiled: Compiled) -> tuple[Choice, ...]:
    algo, dtype, model = compiled.algo, compiled.converted.dtype, compiled.converted.model
    rows = [
        ("gpt_attention_plugin", "auto", "needed by every decoder-only model"),
        ("gemm_plugin", *_gemm_plugin(algo, dtype)),
        ("use_fused_mlp", *_fused_mlp(algo)),
    ]
    if algo == "FP8_PER_CHANNEL_PER_TOKEN":
        rows.append(("fp8_rowwise_gemm_plugin", "auto", "scales for each row and token are this plugin's alone"))
    if algo == "NVFP4" and model.architecture == "LlamaForCausalLM" and compiled.limits.tp == 1:
        rows.append(("norm_quant_fusion", ON, "norm and rounding to 4 bits in one kernel; Llama in NVFP4 has it"))
    if model.moe:
        rows.append(("moe_plugin", "auto", "experts in grouped GEMMs; without it each expert is one of its own"))
    return _choices(*rows)


def _gemm_plugin(algo: str | None, dtype: str) -> tuple[str, str]:
    if algo == "FP8":
        return OFF, "TensorRT's own FP8 GEMMs are the faster ones"
    if algo == "NVFP4":
        return "nvfp4", "4-bit float GEMMs; the builder takes it for such checkpoints in any case"
    return dtype, "cuBLAS for what stays in 16 bits; group-wise kernels are chosen by the checkpoint itself"


def _fused_mlp(algo: str | None) -> tuple[str, str]:
    if algo in FUSED_MLP:
        return ON, "gate and up projections in one GEMM"
    return OFF, f"the builder fuses gate and up in 16 bits, FP8 and mixed checkpoints alone, and this one is {algo}"


def _attention(compiled: Compiled) -> tuple[Choice, ...]:
    fp8, fp8_reason = _fp8_attention(compiled)
    paged, paged_reason = _paged_attention(compiled, is_fp8=fp8 == ON)
    return _choices(
        ("kv_cache_type", "paged", "blocks instead of one slab per request"),
        ("tokens_per_block", TOKENS_PER_BLOCK, "prefixes are reused by whole blocks; smaller ones cost bookkeeping"),
        ("remove_input_padding", ON, "in-flight batching needs it"),
        ("context_fmha", ON, "fused attention in prefill; without it the workspace is quadratic"),
        ("use_paged_context_fmha", paged, paged_reason),
        ("use_fp8_context_fmha", fp8, fp8_reason),
    )


def _fp8_attention(compiled: Compiled) -> tuple[str, str]:
    sm, kv_cache = compiled.gpu.sm, compiled.converted.kv_cache
    if compiled.algo not in FP8_ATTENTION:
        return OFF, "goes with 8-bit float checkpoints alone"
    if sm < 89:
        return OFF, "Ada and newer have it"
    if kv_cache != "fp8":
        return OFF, "with a paged context it needs an FP8 KV cache"
    doubt = "" if sm <= 90 else "; documented for Ada and Hopper, and the builder takes it on newer GPUs too"
    return ON, f"an FP8 KV cache in a paged context needs FP8 attention{doubt}"


def _paged_attention(compiled: Compiled, *, is_fp8: bool) -> tuple[str, str]:
    kv_cache = compiled.converted.kv_cache
    if kv_cache == "int8":
        return OFF, "does not work with an int8 KV cache; the server runs without KV reuse and chunked context"
    if kv_cache == "fp8" and not is_fp8:
        return OFF, "an FP8 KV cache needs FP8 attention here; the server runs without KV reuse and chunked context"
    return ON, "KV reuse and chunked context need it"


def _parallel(compiled: Compiled) -> tuple[Choice, ...]:
    limits, ranks, asked = compiled.limits, compiled.ranks, compiled.asked
    model = compiled.converted.model
    workers = min(ranks, asked.workers or ranks)
    rows = []
    if ranks > 1:
        rows.append(("nccl_plugin", "auto", f"{ranks} ranks talk to each other"))
    if limits.tp > 1:
        is_fused = model.architecture in REDUCE_FUSION
        reason = "residual and norm in the all-reduce's kernel" if is_fused else "for Llama and Gemma 2 alone"
        rows.append(("reduce_fusion", ON if is_fused else OFF, reason))
        is_direct = is_fused and model.architecture == "LlamaForCausalLM" and compiled.algo == "FP8"
        if is_direct and compiled.gpu.nvlink_gb_per_s:
            rows.append(
                ("user_buffer", ON, "FP8 Llama reduces in place where NVLink lets ranks see each other's memory")
            )
    if limits.pp > 1 and limits.tp > 1 and model.architecture == "MixtralForCausalLM":
        rows.append(("pp_reduce_scatter", ON, "stages of Mixtral hand on shares instead of whole activations"))
    if asked.workers and asked.workers != workers:
        reason = f"{asked.workers} were asked for, and there is one rank for each to compile: {ranks}"
    else:
        reason = "as asked" if asked.workers else "one for each rank, as far as the builder's GPUs go"
    rows.append(("workers", str(workers), reason if ranks > 1 or asked.workers else "one rank"))
    return _choices(*rows)
