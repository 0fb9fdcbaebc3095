"""7: what the configuration promises, and what the engine was built for."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.repository import parameters
from toolkit.repository.check import Check
from toolkit.repository.engines import facts_of
from toolkit.repository.seen import EngineFacts, Model, Seen

#: decoding_mode → what the engine must have been built with.
SPECULATIVE = {"lookahead": "lookahead_decoding", "medusa": "medusa", "eagle": "eagle"}
NEEDS_PAGES = ("enable_kv_cache_reuse", "enable_chunked_context")
TYPES = {"float16": "FP16", "bfloat16": "BF16", "float32": "FP32"}


def run(seen: Seen) -> Iterator[str]:
    """Name batches, beams, modes and versions that the engine does not have."""
    for name, model in seen.parsed.items():
        for size in model.config.dynamic_batching.preferred_batch_size:
            if size > model.config.max_batch_size:
                yield f"{name}: preferred_batch_size {size} is above max_batch_size {model.config.max_batch_size}."
    for model in seen.with_role("tensorrt_llm"):
        if facts := facts_of(model, seen):
            yield from _engine(model, facts, seen.around.tensorrt_llm)


def _engine(model: Model, facts: EngineFacts, server: str) -> Iterator[str]:
    name = model.name
    if facts.tensorrt_llm != server:
        yield f"{name}: its engine is of TensorRT-LLM {facts.tensorrt_llm}, and the server has {server}."
    if model.config.max_batch_size > facts.max_batch_size:
        batch = model.config.max_batch_size
        yield f"{name}: max_batch_size {batch} is above the engine's {facts.max_batch_size}."
    if (beams := _integer(model, "max_beam_width")) > facts.max_beam_width:
        yield f"{name}: max_beam_width {beams} is above the engine's {facts.max_beam_width}."
    for key in NEEDS_PAGES:
        if not facts.is_context_paged and model.value(key) in parameters.TRUE:
            yield f"{name}: {key} needs an engine with use_paged_context_fmha, and this one has none."
    mode = model.value("decoding_mode")
    if SPECULATIVE.get(mode, facts.speculative) != facts.speculative:
        yield f"{name}: decoding_mode {mode} needs an engine built with {SPECULATIVE[mode]}."
    if mode == "beam_search" and max(beams, 1) == 1:
        yield f"{name}: decoding_mode beam_search has no beams: max_beam_width is 1."
    yield from _logits(model, facts)


def _logits(model: Model, facts: EngineFacts) -> Iterator[str]:
    from tritonclient.grpc import model_config_pb2

    for tensor in model.config.output:
        kind = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
        if tensor.name in {"context_logits", "generation_logits"} and kind != TYPES[facts.logits_dtype]:
            yield f"{model.name}: {tensor.name} is {kind}, and the engine's logits are {TYPES[facts.logits_dtype]}."


def _integer(model: Model, key: str) -> int:
    text = model.value(key)
    return int(text) if text.isdecimal() else 0


def _left_out(seen: Seen) -> str:
    unread = [model.name for model in seen.with_role("tensorrt_llm") if not facts_of(model, seen)]
    return f"{', '.join(unread)}: no config.json of its engine was found here; --mount HOST:CONTAINER" if unread else ""


CHECK = Check(number=7, name="sizes", title="batches, beams and versions of the engine", run=run, left_out=_left_out)
