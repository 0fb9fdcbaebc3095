"""5: nothing is left of a template, and the release knows every key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from toolkit.repository import parameters
from toolkit.repository.check import Check
from toolkit.repository.parameters import Parameter
from toolkit.repository.seen import LLM_API, Model, Seen

LEFT_OVER = re.compile(r"\$\{\w*\}?|\{\{|\{%|: *None\b|: *$", re.MULTILINE)
COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|#[^\n]*')


def run(seen: Seen) -> Iterator[str]:
    """Name placeholders, missing keys and unknown ones."""
    for model in seen.models.values():
        yield from _left_over(model)
    for model in seen.parsed.values():
        if parameters.table(model.role):
            yield from _keys(model, seen.around.tensorrt_llm)
    for model in seen.with_role(LLM_API):
        yield from _yaml(model, seen)


def _left_over(model: Model) -> Iterator[str]:
    told = model.config.parameters if model.config is not None else {}
    left = {key: told[key].string_value for key in told if told[key].string_value.startswith("${")}
    for key, value in left.items():
        yield f"{model.name}: {key} is still {value}: {_effect(parameters.table(model.role).get(key))}."
    text = COMMENT.sub(lambda found: found[1] or "", model.text)
    for found in LEFT_OVER.finditer(text):
        if found[0] not in left.values():
            yield f"{model.name}: {found[0]!r} was left in config.pbtxt."


def _effect(one: Parameter | None) -> str:
    if one and one.kind == "path":
        return "it is taken for a path"
    return f"the model takes its default, {one.default}" if one and one.default else "the model goes without it"


def _keys(model: Model, version: str) -> Iterator[str]:
    table, there = parameters.table(model.role), set(model.config.parameters)
    # NVIDIA's Python model of the engine asks whether a key is there; only the C++ backend does not.
    is_strict = model.role != "tensorrt_llm" or model.config.backend == "tensorrtllm"
    for key, one in parameters.in_release(model.role, version).items():
        if is_strict and one.is_required_in(version) and key not in there:
            yield f"{model.name}: the parameter {key} is missing."
    for key in sorted(there):
        if key not in table:
            known = parameters.in_release(model.role, version)
            yield f"{model.name}: {_unknown('parameter', key, known, where=f'TensorRT-LLM {version}')}"
        elif not table[key].exists_in(version):
            yield f"{model.name}: TensorRT-LLM {version} has no parameter {key}: {table[key].span()}."


def _yaml(model: Model, seen: Seen) -> Iterator[str]:
    api = seen.around.api
    if api is None or not isinstance(model.settings, dict):
        return
    for key in dotted(model.settings):
        if key not in api.keys:
            yield f"{model.name}: {_unknown('key of model.yaml', key, api.keys, where=f'the LLM API {api.name}')}"


def dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's keys as group.key → value."""
    made: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            made |= {f"{key}.{name}": each for name, each in value.items()}
        else:
            made[str(key)] = value
    return made


def _unknown(kind: str, key: str, known: Iterable[str], *, where: str) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.7)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"trtk knows no {kind} {key} of {where}.{hint}"


def _left_out(seen: Seen) -> str:
    if seen.with_role(LLM_API) and seen.around.api is None:
        return f"keys of model.yaml: trtk knows none of TensorRT-LLM {seen.around.tensorrt_llm}'s LLM API"
    return ""


CHECK = Check(number=5, name="keys", title="no placeholders; keys of this release", run=run, left_out=_left_out)
