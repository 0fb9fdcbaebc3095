"""The keys of the LLM API's YAML that a plan calls for, dotted, each with its reason."""

from __future__ import annotations

from toolkit.errors import PlanInfeasible
from toolkit.plan import engine_options, set_flags
from toolkit.plan.engine_options import AskedEngine
from toolkit.specs import Choice, Limits, LlmApi
from toolkit.specs.planning import Sizing

#: CUDA graphs are captured for batches up to this; each takes memory, and larger batches gain little from them.
GRAPH_BATCH_SIZE = 128


def choose(sizing: Sizing, asked: AskedEngine, api: LlmApi) -> tuple[Choice, ...]:
    """Return the settings of model.yaml besides its paths; only keys that the release's LLM API has."""
    _need_no_engine_options(asked)
    rows = [*_sizes(sizing.limits), *_runtime(sizing), *_lora(asked)]
    keys = tuple(Choice(name=name, value=value, reason=reason) for name, value, reason in rows if name in api.keys)
    return set_flags.apply_keys(keys, asked.set_flags, api=api)


def _need_no_engine_options(asked: AskedEngine) -> None:
    """Raise PlanInfeasible for what only a compiled engine has."""
    given = {
        f"--speculative {asked.speculative}": asked.speculative,
        "--max-draft-len": asked.max_draft_len,
        f"--gather-logits {asked.logits}": asked.logits,
        "--workers": asked.workers,
    }
    for option, value in given.items():
        if value:
            raise PlanInfeasible(
                f"{option} is built into a compiled engine, and the LLM API loads a checkpoint as it is.",
                hint=f"Leave {option.split()[0]} out, or try --flow engine.",
            )


def _sizes(limits: Limits) -> list[tuple[str, str, str]]:
    rows = [
        ("tensor_parallel_size", str(limits.tp), "ranks that share each layer"),
        ("pipeline_parallel_size", str(limits.pp), "ranks that take the layers in turn"),
        ("max_batch_size", str(limits.max_batch_size), "the plan's limit"),
        ("max_num_tokens", str(limits.max_num_tokens), "the plan's limit; activation memory grows with it"),
        ("max_seq_len", str(limits.max_seq_len), "the plan's limit, prompt and answer together"),
    ]
    if limits.ep > 1:
        rows.append(("moe_expert_parallel_size", str(limits.ep), "ranks that share out the experts"))
    return rows


def _runtime(sizing: Sizing) -> list[tuple[str, str, str]]:
    graphs = min(sizing.limits.max_batch_size, GRAPH_BATCH_SIZE)
    reasons = {choice.name: choice.reason for choice in sizing.choices}
    return [
        ("enable_chunked_prefill", "true", "long prompts do not hold up streams that run"),
        ("kv_cache_config.enable_block_reuse", "true", "prefixes that requests share are computed once"),
        (
            "kv_cache_config.free_gpu_memory_fraction",
            str(sizing.kv_fraction),
            reasons["kv_cache_free_gpu_mem_fraction"],
        ),
        (
            "scheduler_config.capacity_scheduler_policy",
            sizing.scheduler_policy.upper(),
            reasons["batch_scheduler_policy"],
        ),
        ("cuda_graph_config.max_batch_size", str(graphs), "decoding without launches from Python, up to this batch"),
        ("cuda_graph_config.enable_padding", "true", "batches between two captured sizes use the larger one"),
    ]


def _lora(asked: AskedEngine) -> list[tuple[str, str, str]]:
    flags = {flag.name: flag for flag in engine_options.lora_flags(asked)}
    if not flags:
        return []
    return [
        ("enable_lora", "true", flags["lora_plugin"].reason),
        ("lora_config.lora_dir", flags["lora_dir"].value, flags["lora_dir"].reason),
        ("lora_config.lora_target_modules", flags["lora_target_modules"].value, flags["lora_target_modules"].reason),
        ("lora_config.max_lora_rank", flags["max_lora_rank"].value, flags["max_lora_rank"].reason),
    ]
