"""What a plan says about how its engine is served: instances, queues, attention windows, parameters."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from toolkit.plan import engine_options
from toolkit.plan.limits import KV_FRACTION, POLICY
from toolkit.specs import BuildPlan, Choice, Limits, ModelSpec, RepositorySettings, to_json

#: Requests that may wait for each one that runs; beyond that a client is told at once, which costs nobody's memory.
QUEUED_PER_SLOT, QUEUED_AT_LEAST = 8, 256
#: Python processes of a step: more than this gain little (docs/model_config.md in tensorrtllm_backend).
INSTANCES = 5


def queue_size(limits: Limits, asked: int | None = None) -> int:
    """Return how many requests may wait for a model; 0 for any number."""
    return asked if asked is not None else max(QUEUED_AT_LEAST, QUEUED_PER_SLOT * limits.max_batch_size)


def instances(limits: Limits, *, is_cpu: bool, is_streaming: bool) -> dict[str, int]:
    """Return the processes of each Python model in front of and behind the engine.

    One of tensorrt_llm_bls keeps many requests in flight where it is decoupled, and one alone where it is not. On a CPU
    every process more takes its time from the engine.
    """
    if is_cpu:
        return {}
    few = min(INSTANCES, limits.max_batch_size)
    calls = few if is_streaming else limits.max_batch_size
    return {"preprocessing": few, "postprocessing": few, "tensorrt_llm_bls": calls}


def windows(model: ModelSpec, max_seq_len: int) -> str:
    """Return max_attention_window_size: the shortest list that repeats over the layers; nothing where none slides."""
    each = [min(model.window_of(layer) or max_seq_len, max_seq_len) for layer in range(model.num_layers)]
    if all(window == max_seq_len for window in each):
        return ""
    lengths = range(1, len(each) + 1)
    period = next(size for size in lengths if all(one == each[at % size] for at, one in enumerate(each)))
    return ",".join(str(window) for window in each[:period])


def parameters(plan: BuildPlan) -> dict[str, str]:
    """Return what NVIDIA's backend must be told of a plan's engine."""
    told = engine_options.parameters(plan.build_flags)
    sliding = windows(plan.conversion.model, plan.limits.max_seq_len)
    found = told | ({"max_attention_window_size": sliding} if sliding else {})
    if plan.kv_fraction != KV_FRACTION:
        found["kv_cache_free_gpu_mem_fraction"] = str(plan.kv_fraction)
    if plan.scheduler_policy != POLICY:
        found["batch_scheduler_policy"] = plan.scheduler_policy
    return found


def with_repository(
    plan: BuildPlan, settings: RepositorySettings, build_flags: tuple[Choice, ...] | None = None
) -> BuildPlan:
    """Return the plan with what was asked of its repository; another plan, unless nothing was."""
    flags = plan.build_flags if build_flags is None else build_flags
    if (settings, flags) == (plan.repository, plan.build_flags):
        return plan
    document = json.dumps([plan.plan_id, to_json(settings), to_json(flags)], sort_keys=True)
    digest = hashlib.sha256(document.encode()).hexdigest()[:16]
    return dataclasses.replace(plan, plan_id=digest, repository=settings, build_flags=flags)
