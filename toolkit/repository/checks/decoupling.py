"""4: what streams must say so in every place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.repository.check import Check
from toolkit.repository.checks.names import called_by
from toolkit.repository.seen import ENGINES, LLM_API, Model, Seen

#: Inputs of NVIDIA's own model around the LLM API, which takes no batches.
STOCK_INPUT = "sampling_param_max_tokens"


def run(seen: Seen) -> Iterator[str]:
    """Name models that differ in what they say about streaming."""
    for bls in seen.with_role("tensorrt_llm_bls"):
        for engine in seen.with_role(*ENGINES):
            if engine.name in called_by(bls) and _is_decoupled(engine) != _is_decoupled(bls):
                yield f"{engine.name} and {bls.name} differ in decoupled; streaming needs it in both."
    for model in seen.with_role(LLM_API):
        yield from _llm_api(model)


def _is_decoupled(model: Model) -> bool:
    return bool(model.config.model_transaction_policy.decoupled)


def _llm_api(model: Model) -> Iterator[str]:
    settings: Any = model.settings if isinstance(model.settings, dict) else {}
    triton = settings.get("triton_config")
    if not isinstance(triton, dict):
        if settings:
            yield f"{model.name}: model.yaml has no triton_config, which model.py reads first."
        return
    here, there = _is_decoupled(model), triton.get("decoupled", False)
    if here != there:
        yield (
            f"{model.name}: config.pbtxt says decoupled {str(here).lower()} and model.yaml {str(there).lower()}; with"
            " --disable-auto-complete-config Triton believes config.pbtxt alone."
        )
    batch, said = model.config.max_batch_size, triton.get("max_batch_size", 0)
    if batch != said:
        yield f"{model.name}: config.pbtxt says max_batch_size {batch} and model.yaml {said}."
    if batch and any(tensor.name == STOCK_INPUT for tensor in model.config.input):
        yield f"{model.name}: max_batch_size is {batch}; NVIDIA's model around the LLM API takes no batches: say 0."


CHECK = Check(number=4, name="decoupling", title="streaming is said alike everywhere", run=run)
