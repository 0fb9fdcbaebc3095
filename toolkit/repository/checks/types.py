"""3: types, dims and batch sizes on both ends of a wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.repository.check import Check
from toolkit.repository.seen import Model, Seen


def run(seen: Seen) -> Iterator[str]:
    """Name wires whose ends differ, and ensembles that promise larger batches than their steps take."""
    for model in seen.parsed.values():
        for step in model.config.ensemble_scheduling.step:
            called = seen.parsed.get(step.model_name)
            if called and called.config.max_batch_size < model.config.max_batch_size:
                yield (
                    f"{model.name}: max_batch_size {model.config.max_batch_size} is above"
                    f" {called.config.max_batch_size} of {step.model_name}."
                )
        yield from _wires(model, seen)


def _wires(model: Model, seen: Seen) -> Iterator[str]:
    producers = _producers(model, seen)
    wires: list[tuple[str, Any, Any]] = [(item.name, item, model.config) for item in model.config.output]
    for step in model.config.ensemble_scheduling.step:
        called = seen.parsed.get(step.model_name)
        if called:
            inputs = {item.name: item for item in called.config.input}
            wires += [(value, inputs[key], called.config) for key, value in step.input_map.items() if key in inputs]
    for value, consumer, config in wires if model.config.ensemble_scheduling.step else ():
        for tensor, producer in producers.get(value, ()):
            if not _is_same(tensor, producer, consumer, config):
                yield (
                    f"{model.name}: {value} is {_shown(tensor)} where it is made and {_shown(consumer)} where"
                    f" {config.name or model.name} takes it as {consumer.name}."
                )


def _producers(model: Model, seen: Seen) -> Mapping[str, list[Any]]:
    made: dict[str, list[Any]] = {tensor.name: [(tensor, model.config)] for tensor in model.config.input}
    for step in model.config.ensemble_scheduling.step:
        called = seen.parsed.get(step.model_name)
        outputs = {tensor.name: tensor for tensor in called.config.output} if called else {}
        for key, value in step.output_map.items():
            if called and key in outputs:
                made.setdefault(value, []).append((outputs[key], called.config))
    return made


def _is_same(tensor: Any, producer: Any, consumer: Any, config: Any) -> bool:
    left, right = _shape(tensor, producer), _shape(consumer, config)
    is_compatible = len(left) == len(right) and all(-1 in pair or len(set(pair)) == 1 for pair in zip(left, right))  # noqa: B905 - lengths compared
    return tensor.data_type == consumer.data_type and is_compatible


def _shape(tensor: Any, config: Any) -> list[int]:
    return [-1] * (config.max_batch_size > 0) + list(tensor.dims)


def _shown(tensor: Any) -> str:
    from tritonclient.grpc import model_config_pb2

    return f"{model_config_pb2.DataType.Name(tensor.data_type)} {list(tensor.dims)}"


CHECK = Check(number=3, name="types", title="types, dims and batch sizes on both ends", run=run)
