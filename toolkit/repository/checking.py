"""What a protobuf parser does not see: wires that lead nowhere, types that differ, a model that is not there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LEFT_OVER = re.compile(r"\$\{|\{\{|\{%|: *None\b|: *$", re.MULTILINE)
#: Without one of these, TensorRT-LLM's C++ backend throws when it loads.
MUST_EXIST = {
    "tensorrtllm": (
        "gpt_model_type",
        "gpt_model_path",
        "tokenizer_dir",
        "xgrammar_tokenizer_info_path",
        "guided_decoding_backend",
    ),
}
MUST_EXIST_IN = {"preprocessing": ("tokenizer_dir", "multimodal_model_path"), "postprocessing": ("tokenizer_dir",)}


def check(folder: Path) -> list[str]:
    """Return what is wrong with a model repository, one sentence each; nothing when it is right."""
    problems: list[str] = []
    configs = {}
    for file in sorted(folder.glob("*/config.pbtxt")):
        text = file.read_text(encoding="utf-8")
        config = _parsed(text, file.parent.name, problems)
        if config is not None:
            configs[file.parent.name] = config
        problems += [
            f"{file.parent.name}: {found.group()!r} was left in config.pbtxt." for found in LEFT_OVER.finditer(text)
        ]
    if not configs and not problems:
        return [f"{folder} has no model: no folder in it holds a config.pbtxt."]
    for name, config in configs.items():
        problems += _own(folder / name, config)
        if config.ensemble_scheduling.step:
            problems += _ensemble(name, config, configs)
    return problems + _between(configs)


def _parsed(text: str, name: str, problems: list[str]) -> Any:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        problems.append(f"{name}: config.pbtxt does not parse: {error}.")
        return None


def _own(folder: Path, config: Any) -> list[str]:
    name, problems = folder.name, []
    if config.name not in {"", name}:
        problems.append(f"{name}: config.pbtxt says name {config.name!r}.")
    if not any(child.is_dir() and child.name.isdigit() for child in folder.iterdir()):
        problems.append(f"{name}: there is no version folder such as {name}/1.")
    for kind, tensors in (("input", config.input), ("output", config.output)):
        twice = [tensor for tensor, count in Counter(item.name for item in tensors).items() if count > 1]
        problems += [f"{name}: the {kind} {tensor} is declared twice." for tensor in twice]
    problems += [
        f"{name}: preferred_batch_size {size} is above max_batch_size {config.max_batch_size}."
        for size in config.dynamic_batching.preferred_batch_size
        if size > config.max_batch_size
    ]
    keys = MUST_EXIST.get(config.backend, ()) + MUST_EXIST_IN.get(name, ())
    return problems + [f"{name}: the parameter {key} is missing." for key in keys if key not in config.parameters]


def _ensemble(name: str, config: Any, configs: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    producers: dict[str, list[Any]] = {tensor.name: [(tensor, config)] for tensor in config.input}
    fed: set[str] = set()
    for step in config.ensemble_scheduling.step:
        model = configs.get(step.model_name)
        if model is None:
            problems.append(f"{name}: the step {step.model_name} is not in the repository.")
            continue
        if model.max_batch_size < config.max_batch_size:
            problems.append(
                f"{name}: max_batch_size {config.max_batch_size} is above {model.max_batch_size} of {step.model_name}."
            )
        problems += _step_names(name, step, model)
        outputs = {tensor.name: tensor for tensor in model.output}
        for key, value in step.output_map.items():
            producers.setdefault(value, []).append((outputs.get(key), model))
        fed |= set(step.input_map.values())
    problems += [f"{name}: the input {item.name} feeds nothing." for item in config.input if item.name not in fed]
    wanted = fed | {item.name for item in config.output}
    for value in sorted(wanted | producers.keys()):
        count = len(producers.get(value, ()))
        if count != 1:
            problems.append(f"{name}: {value} has {count} producers, and needs one.")
    return problems + _types(name, config, configs, producers)


def _step_names(name: str, step: Any, model: Any) -> list[str]:
    inputs, outputs = {item.name for item in model.input}, {item.name for item in model.output}
    required = {item.name for item in model.input if not item.optional}
    return [
        *(f"{name}: {step.model_name} has no input {key}." for key in sorted(step.input_map.keys() - inputs)),
        *(f"{name}: {step.model_name} has no output {key}." for key in sorted(step.output_map.keys() - outputs)),
        *(f"{name}: {step.model_name} needs {key}." for key in sorted(required - step.input_map.keys())),
    ]


def _types(name: str, config: Any, configs: Mapping[str, Any], producers: Mapping[str, list[Any]]) -> list[str]:
    wires: list[tuple[str, Any, Any]] = [(item.name, item, config) for item in config.output]
    for step in config.ensemble_scheduling.step:
        model = configs.get(step.model_name)
        inputs = {item.name: item for item in model.input} if model else {}
        wires += [(value, inputs[key], model) for key, value in step.input_map.items() if key in inputs]
    problems = []
    for value, consumer, model in wires:
        for tensor, producer in producers.get(value, ()):
            if tensor is not None and not _is_same(tensor, producer, consumer, model):
                problems.append(
                    f"{name}: {value} is {_shown(tensor)} where it is made and {_shown(consumer)} where"
                    f" {model.name} takes it as {consumer.name}."
                )
    return problems


def _is_same(tensor: Any, producer: Any, consumer: Any, model: Any) -> bool:
    left, right = _shape(tensor, producer), _shape(consumer, model)
    is_compatible = len(left) == len(right) and all(-1 in pair or len(set(pair)) == 1 for pair in zip(left, right))  # noqa: B905 - lengths compared
    return tensor.data_type == consumer.data_type and is_compatible


def _shape(tensor: Any, model: Any) -> list[int]:
    return [-1] * (model.max_batch_size > 0) + list(tensor.dims)


def _shown(tensor: Any) -> str:
    from tritonclient.grpc import model_config_pb2

    return f"{model_config_pb2.DataType.Name(tensor.data_type)} {list(tensor.dims)}"


def _between(configs: Mapping[str, Any]) -> list[str]:
    if not {"tensorrt_llm", "tensorrt_llm_bls"} <= configs.keys():
        return []
    engine, bls = configs["tensorrt_llm"], configs["tensorrt_llm_bls"]
    problems = []
    if engine.model_transaction_policy.decoupled != bls.model_transaction_policy.decoupled:
        problems.append("tensorrt_llm and tensorrt_llm_bls differ in decoupled; streaming needs it in both.")
    return problems + _called(bls, configs)


def _called(bls: Any, configs: Mapping[str, Any]) -> list[str]:
    engine = bls.parameters["tensorrt_llm_model_name"].string_value or "tensorrt_llm"
    called: Iterable[str] = ("preprocessing", engine, "postprocessing")
    return [f"tensorrt_llm_bls calls {name}, which is not in the repository." for name in called if name not in configs]
