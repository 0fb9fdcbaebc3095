"""What of an engine deployment goes over to the LLM API, what stays behind, and what may not."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.errors import PlanInfeasible
from toolkit.plan import build_flags, storage
from toolkit.plan.engine_options import LOGITS, AskedEngine
from toolkit.plan.limits import Asked
from toolkit.plan.set_flags import ASKED
from toolkit.plan.storage import AskedCheckpoint
from toolkit.specs import BuildPlan, Choice, Sharding

#: What a client or an operator would notice: left behind only when it is named.
SPECULATIVE, KEPT_LOGITS, KV_CACHE = "speculative", "logits", "kv-cache"
DROPPABLE = (SPECULATIVE, KEPT_LOGITS, KV_CACHE)


@dataclass(frozen=True, kw_only=True)
class Migration:
    """An engine's plan in the terms of the LLM API's."""

    checkpoint: AskedCheckpoint
    asked: Asked
    left: tuple[Choice, ...]  # settings that have no counterpart, with the reason


def of(old: BuildPlan, *, dropped: tuple[str, ...] = ()) -> Migration:
    """Return what to ask for in place of an engine; raises PlanInfeasible for a loss that nobody agreed to."""
    left = _left(old)
    for choice in left:
        if choice.name in DROPPABLE and choice.name not in dropped:
            raise PlanInfeasible(
                f"{choice.name} {choice.value} of the engine cannot go over: {choice.reason}.",
                hint=f"Leave it behind with --drop {choice.name}.",
            )
    converted = old.conversion
    is_kv_kept = converted.kv_cache and not any(choice.name == KV_CACHE for choice in left)
    checkpoint = AskedCheckpoint(
        group_size=converted.group_size,
        dtype=None if converted.recipe.dtype else converted.dtype,
        device=converted.device,
        layout=storage.HF,
        kv_cache=converted.kv_cache if is_kv_kept and converted.kv_cache else storage.NONE,
        exclude=converted.exclude,
    )
    limits = old.limits
    asked = Asked(
        max_batch_size=limits.max_batch_size,
        max_seq_len=limits.max_seq_len,
        max_num_tokens=limits.max_num_tokens,
        sharding=Sharding(tp=limits.tp, pp=limits.pp, ep=limits.ep),
        engine=AskedEngine(adapters=old.adapters, max_lora_rank=_lora_rank(old), set_flags=_reuse(old)),
    )
    return Migration(checkpoint=checkpoint, asked=asked, left=left)


def _left(old: BuildPlan) -> tuple[Choice, ...]:
    flags = {flag.name: flag for flag in old.build_flags}
    left = []
    if mode := flags.get("speculative_decoding_mode"):
        reason = "it is compiled into an engine, and the LLM API has none of these modes"
        left.append(Choice(name=SPECULATIVE, value=mode.value, reason=reason))
    for name, flag in LOGITS.items():
        if flag in flags:
            reason = "the LLM API's repository answers return_context_logits and return_generation_logits with an error"
            left.append(Choice(name=KEPT_LOGITS, value=name, reason=reason))
    if old.conversion.kv_cache == "int8":
        reason = "the LLM API has no int8 KV cache; with 16 bits half as many tokens fit"
        left.append(Choice(name=KV_CACHE, value="int8", reason=reason))
    if old.adapters:
        names = ", ".join(f"{number} {adapter.name}" for number, adapter in enumerate(old.adapters, 1))
        reason = f"an adapter is chosen by lora_task_id ({names}); weights in a request are refused"
        left.append(Choice(name="lora_weights", value="tensor", reason=reason))
    own = [flag for flag in old.build_flags if flag.reason.startswith(ASKED)]
    reason = "a flag of trtllm-build, and nothing is compiled; --set-flag takes keys of the LLM API"
    left += [Choice(name=flag.name, value=flag.value, reason=reason) for flag in own]
    reason = "the LLM API's repository has one model, called ensemble; the second name is not served"
    return (*left, Choice(name="tensorrt_llm_bls", value="model", reason=reason))


def _lora_rank(old: BuildPlan) -> int | None:
    rank = build_flags.value_of(old.build_flags, "max_lora_rank")
    return int(rank) if rank else None


def _reuse(old: BuildPlan) -> tuple[tuple[str, str], ...]:
    """An engine without a paged context ran without KV reuse and chunked prefill; so does what takes its place."""
    if build_flags.value_of(old.build_flags, "use_paged_context_fmha") != build_flags.OFF:
        return ()
    if old.conversion.kv_cache:  # the cache's type was the reason, and it is not one here
        return ()
    return (("kv_cache_config.enable_block_reuse", "false"), ("enable_chunked_prefill", "false"))
