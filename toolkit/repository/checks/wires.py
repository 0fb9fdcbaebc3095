"""2: tensors, and the wires of an ensemble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from toolkit.repository.check import Check
from toolkit.repository.seen import Model, Seen


def run(seen: Seen) -> Iterator[str]:
    """Name tensors that are declared twice, and wires that lead nowhere."""
    for name, model in seen.parsed.items():
        for kind, tensors in (("input", model.config.input), ("output", model.config.output)):
            counts = Counter(item.name for item in tensors)
            yield from (f"{name}: the {kind} {tensor} is declared twice." for tensor, n in counts.items() if n > 1)
        if model.config.ensemble_scheduling.step:
            yield from _ensemble(model, seen)


def _ensemble(model: Model, seen: Seen) -> Iterator[str]:
    name, config = model.name, model.config
    producers, fed = Counter(item.name for item in config.input), set[str]()
    for step in config.ensemble_scheduling.step:
        called = seen.parsed.get(step.model_name)
        if called:
            yield from _step(name, step, called.config)
        producers.update(step.output_map.values())
        fed |= set(step.input_map.values())
    yield from (f"{name}: the input {item.name} feeds nothing." for item in config.input if item.name not in fed)
    for value in sorted(fed | {item.name for item in config.output} | producers.keys()):
        if producers[value] != 1:
            yield f"{name}: {value} has {producers[value]} producers, and needs one."


def _step(name: str, step: Any, config: Any) -> Iterator[str]:
    inputs, outputs = {item.name for item in config.input}, {item.name for item in config.output}
    required = {item.name for item in config.input if not item.optional}
    yield from (f"{name}: {step.model_name} has no input {key}." for key in sorted(step.input_map.keys() - inputs))
    yield from (f"{name}: {step.model_name} has no output {key}." for key in sorted(step.output_map.keys() - outputs))
    yield from (f"{name}: {step.model_name} needs {key}." for key in sorted(required - step.input_map.keys()))


CHECK = Check(number=2, name="wires", title="tensors and wires of ensembles", run=run)
