"""0: the text is a model configuration at all."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.repository.check import Check
from toolkit.repository.seen import LLM_API, Seen


def run(seen: Seen) -> Iterator[str]:
    """Name what Triton's own schema, or YAML, does not read."""
    if not seen.models:
        yield f"{seen.folder} has no model: no folder in it holds a config.pbtxt."
    for name, model in seen.models.items():
        if model.fault:
            yield f"{name}: config.pbtxt does not parse: {model.fault}."
        if model.settings_fault:
            yield f"{name}: model.yaml does not parse: {model.settings_fault}."
        elif model.role == LLM_API and not isinstance(model.settings, dict):
            yield f"{name}: model.yaml is not a table of settings."


CHECK = Check(number=0, name="parses", title="every file parses", run=run)
