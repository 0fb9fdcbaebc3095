"""The flags of trtllm-build that a plan calls for, each with its reason."""

from __future__ import annotations

from toolkit.specs import Choice, GpuSpec, Limits, QuantRecipe


def choose(gpu: GpuSpec, recipe: QuantRecipe, limits: Limits, *, dtype: str) -> tuple[Choice, ...]:
    """Return flags (names without dashes) besides the folders."""
    plugin, plugin_reason = _gemm_plugin(recipe, dtype)
    chosen = [
        ("max_batch_size", str(limits.max_batch_size), "the plan's limit; decoder buffers grow with it"),
        ("max_seq_len", str(limits.max_seq_len), "the plan's limit, prompt and answer together"),
        ("max_num_tokens", str(limits.max_num_tokens), "the plan's limit; activation memory grows with it"),
        ("max_beam_width", "1", "sampling and greedy only; beams multiply the KV cache"),
        ("gpt_attention_plugin", "auto", "needed by every decoder-only model"),
        ("gemm_plugin", plugin, plugin_reason),
        ("kv_cache_type", "paged", "blocks instead of one slab per request"),
        ("remove_input_padding", "enable", "in-flight batching needs it"),
        ("context_fmha", "enable", "fused attention in prefill; without it the workspace is quadratic"),
        ("use_paged_context_fmha", "enable", "KV reuse and chunked context need it"),
        ("workers", "1", "one rank"),
    ]
    if recipe.quant_algo == "FP8":
        is_fused = gpu.sm in {89, 90}
        reason = (
            "FP8 attention in prefill: Ada and Hopper have it" if is_fused else "documented for Ada and Hopper only"
        )
        chosen.append(("use_fp8_context_fmha", "enable" if is_fused else "disable", reason))
    return tuple(Choice(name=name, value=value, reason=reason) for name, value, reason in chosen)


def _gemm_plugin(recipe: QuantRecipe, dtype: str) -> tuple[str, str]:
    if recipe.quant_algo == "FP8":
        return "disable", "TensorRT's own FP8 GEMMs are the faster ones"
    return dtype, "cuBLAS for what stays in 16 bits; group-wise kernels are chosen by the checkpoint itself"
