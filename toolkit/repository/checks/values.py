"""8: values in their range, and those that go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.repository import parameters
from toolkit.repository.check import Check
from toolkit.repository.checks.keys import dotted
from toolkit.repository.seen import LLM_API, Model, Seen

LOOKAHEAD = ("lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size")


def run(seen: Seen) -> Iterator[str]:
    """Name values that a backend would not take, or would pass over without a word."""
    for model in seen.parsed.values():
        for key, one in parameters.table(model.role).items():
            value = model.value(key)
            if value and not one.is_legal(value):
                yield f"{model.name}: {key} cannot be {value!r}: it takes {one.takes()}."
    for model in seen.with_role("tensorrt_llm"):
        yield from _together(model)
    for model in seen.with_role(LLM_API):
        yield from _yaml(model, seen)


def _together(model: Model) -> Iterator[str]:
    given = [key for key in LOOKAHEAD if model.value(key)]
    if given and len(given) < len(LOOKAHEAD):
        missing = ", ".join(key for key in LOOKAHEAD if key not in given)
        yield f"{model.name}: {', '.join(given)} without {missing}: the three go together."
    if model.value("decoding_mode") == "lookahead" and not given:
        yield f"{model.name}: decoding_mode lookahead needs {', '.join(LOOKAHEAD)}."
    if not model.value("guided_decoding_backend"):
        return
    is_native = model.config.backend == "tensorrtllm"
    key = "xgrammar_tokenizer_info_path" if is_native else "tokenizer_dir"
    if not model.value(key):
        yield f"{model.name}: guided_decoding_backend needs {key}."


def _yaml(model: Model, seen: Seen) -> Iterator[str]:
    api = seen.around.api
    settings = dotted(model.settings) if isinstance(model.settings, dict) else {}
    for key, value in settings.items():
        kind = api.keys.get(key) if api else None
        if kind and api and not _is_legal(kind, value, api.choices.get(key, ())):
            takes = ", ".join(api.choices[key]) if key in api.choices else f"a {kind}"
            yield f"{model.name}: {key} of model.yaml cannot be {value!r}: it takes {takes}."


def _is_legal(kind: str, value: Any, choices: tuple[str, ...]) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value is None or {
        "integer": isinstance(value, int) and not isinstance(value, bool) and value >= 0,
        "boolean": isinstance(value, bool),
        "fraction": is_number and 0 <= float(value) <= 1 if is_number else False,
        "choice": value in choices,
        "texts": isinstance(value, list),
        "integers": isinstance(value, list) and all(isinstance(one, int) for one in value),
        "text": isinstance(value, str),
    }.get(kind, True)


CHECK = Check(number=8, name="values", title="values in range, and those that go together", run=run)
