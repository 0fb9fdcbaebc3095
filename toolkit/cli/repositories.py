"""From a plan, and what was asked beside it, to the files of a model repository."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import engine, releases, repository
from toolkit.engine import bundle
from toolkit.plan import build_flags, serving
from toolkit.repository import EngineFacts, Surroundings
from toolkit.specs import BuildPlan, RepositorySpec

#: Where the C++ backend finds the vocabulary for xgrammar, below the repository.
VOCABULARY = "tensorrt_llm/1/xgrammar_tokenizer_info.json"
GUIDED, VOCABULARY_KEY = "guided_decoding_backend", "xgrammar_tokenizer_info_path"


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the server finds what a repository names; the defaults are those inside a built folder."""

    tokenizer: str = f"../{engine.TOKENIZER}"
    engine: str = ""  # empty: where the flow has it
    repository: str = bundle.REPOSITORY_LINK
    draft_engine: str = ""


def files_of(
    plan: BuildPlan,
    folder: Path | None,
    *,
    tokenizer: Path | None = None,
    places: Places | None = None,
    around: Surroundings | None = None,
) -> dict[str, str]:
    """Return the files of a plan's repository in FOLDER, which has no problem.

    FOLDER and TOKENIZER are None where nothing is made yet: then it is only seen whether what was set can be.
    """
    spec = spec_of(plan, places or Places())
    if spec.parameters.get("tensorrt_llm", {}).get(GUIDED) and spec.engine_backend == "tensorrtllm":
        spec = dataclasses.replace(spec, files={VOCABULARY: repository.vocabulary(tokenizer) if tokenizer else ""})
    files = repository.render(spec)
    repository.need_right(files, around or surroundings_of(plan), folder)
    return files


def need_possible(plan: BuildPlan) -> None:
    """Raise where what was set cannot be; a machine without Triton's schema, which only plans, sees less of it."""
    if importlib.util.find_spec("tritonclient"):
        files_of(plan, None)
    else:
        repository.render(spec_of(plan, Places()))


def surroundings_of(plan: BuildPlan) -> Surroundings:
    """Return what a plan's repository is held against."""
    api = releases.llm_api_of(plan.release) if plan.flow == "llmapi" else None
    facts = engine_facts(plan) if plan.flow == "engine" else None
    return Surroundings(tensorrt_llm=plan.release.tensorrt_llm, api=api, engine=facts)


def engine_facts(plan: BuildPlan) -> EngineFacts:
    """Return what a plan's engine is built for."""
    flags = plan.build_flags
    return EngineFacts(
        tensorrt_llm=plan.release.tensorrt_llm,
        max_batch_size=plan.limits.max_batch_size,
        max_beam_width=int(build_flags.value_of(flags, "max_beam_width") or 1),
        tp=plan.limits.tp,
        pp=plan.limits.pp,
        is_context_paged=build_flags.value_of(flags, "use_paged_context_fmha") != build_flags.OFF,
        speculative=build_flags.value_of(flags, "speculative_decoding_mode") or "",
        logits_dtype=build_flags.value_of(flags, "logits_dtype") or "float32",
    )


def spec_of(plan: BuildPlan, places: Places) -> RepositorySpec:
    """Return what the Triton repository of a plan says."""
    asked, limits, is_cpu = plan.repository, plan.limits, plan.gpu.is_cpu
    common: dict[str, Any] = {
        "tensorrt_llm": plan.release.tensorrt_llm,
        "tokenizer_dir": places.tokenizer,
        "max_batch_size": limits.max_batch_size,
        "max_seq_len": limits.max_seq_len,
        "max_num_tokens": limits.max_num_tokens,
        "dtype": plan.conversion.dtype,
        "is_decoupled": asked.is_streaming,
        "max_queue_size": serving.queue_size(limits, asked.max_queue_size),
        "max_queue_delay_microseconds": asked.max_queue_delay_microseconds or 0,
    }
    if plan.flow == "llmapi":
        return _llm_api_spec(plan, places, common)
    instances = serving.instances(limits, is_cpu=is_cpu, is_streaming=asked.is_streaming) | dict(asked.instances)
    facts = engine_facts(plan)
    return RepositorySpec(
        layout="inflight_batcher",
        engine_backend="openvino" if is_cpu else "tensorrtllm",
        engine_dir=places.engine or (f"../{engine.ENGINE}" if is_cpu else bundle.ENGINE_LINK),
        kv_cache_bytes=plan.kv_bytes if is_cpu else 0,
        instances=instances,
        ranks=facts.ranks,
        max_beam_width=facts.max_beam_width,
        logits_dtype=facts.logits_dtype,
        is_kv_cache_reuse_enabled=is_cpu or facts.is_context_paged,
        is_chunked_context_enabled=is_cpu or facts.is_context_paged,
        parameters=asked.parameters if is_cpu else _engine_parameters(plan, places),
        draft_engine_dir=places.draft_engine,
        **common,
    )


def _engine_parameters(plan: BuildPlan, places: Places) -> Mapping[str, Mapping[str, str]]:
    """Return the parameters of each model: what the plan says of its engine, and over it what was asked."""
    asked = plan.repository.parameters
    told = serving.parameters(plan) | dict(asked.get("tensorrt_llm", {}))
    if told.get(GUIDED) and VOCABULARY_KEY not in told:
        told[VOCABULARY_KEY] = f"{places.repository}/{VOCABULARY}"
    return {**asked, "tensorrt_llm": told}


def _llm_api_spec(plan: BuildPlan, places: Places, common: dict[str, Any]) -> RepositorySpec:
    api = releases.llm_api_of(plan.release)
    assert api, "the plan's flow needs it"
    return RepositorySpec(
        layout="llmapi",
        engine_backend="llmapi",
        engine_dir=places.engine or f"../{engine.CHECKPOINT}",
        instances=plan.repository.instances,
        model_name=plan.repository.model_name or "ensemble",
        llm_api={key.name: _typed(key.value, api.keys[key.name]) for key in plan.build_flags},
        **common,
    )


def _typed(value: str, kind: str) -> Any:
    """Return a key's value as YAML's own kind."""
    if kind == "texts":
        return value.split()
    if kind == "integers":
        return [int(part) for part in value.split(",")]
    if kind in {"boolean", "integer", "fraction"}:
        return json.loads(value)
    return value
