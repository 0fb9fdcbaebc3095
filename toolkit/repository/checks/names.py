"""1: names, version folders, and models that others call."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.repository.check import Check
from toolkit.repository.seen import Model, Seen

#: What tensorrt_llm_bls calls: parameter → the name where it is not set. An empty one is called only where it is set.
CALLED = {
    "preprocessing_model_name": "preprocessing",
    "tensorrt_llm_model_name": "tensorrt_llm",
    "postprocessing_model_name": "postprocessing",
    "tensorrt_llm_draft_model_name": "",
    "multimodal_encoders_name": "",
}


def run(seen: Seen) -> Iterator[str]:
    """Name models that are not where their callers look for them."""
    for name, model in seen.models.items():
        if not any(path.endswith("/") and path[:-1].isdigit() for path in model.paths):
            yield f"{name}: there is no version folder such as {name}/1."
    for name, model in seen.parsed.items():
        if model.config.name not in {"", name}:
            yield f"{name}: config.pbtxt says name {model.config.name!r}."
        yield from _steps(model, seen)
    for model in seen.with_role("tensorrt_llm_bls"):
        for called in called_by(model):
            if called not in seen.models:
                yield f"{model.name} calls {called}, which is not in the repository."


def _steps(model: Model, seen: Seen) -> Iterator[str]:
    for step in model.config.ensemble_scheduling.step:
        if step.model_name not in seen.models:
            yield f"{model.name}: the step {step.model_name} is not in the repository."


def called_by(bls: Model) -> list[str]:
    """Return the models that a tensorrt_llm_bls calls by name."""
    return [called for key, default in CALLED.items() if (called := bls.value(key, default))]


CHECK = Check(number=1, name="names", title="names, versions and called models", run=run)
