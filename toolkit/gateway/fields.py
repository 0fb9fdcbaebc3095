"""The fields of OpenAI's requests: which there are, what may be in them, and what is refused with which words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.gateway.refusals import Refusal, bad

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Number:
    """A number and its range."""

    lowest: float
    highest: float
    is_whole: bool = False

    def read(self, fields: Fields, name: str) -> Any:
        """Return the value, None where there is none; raises Refusal."""
        value = fields.get(name)
        if value is None:
            return None
        kinds = (int,) if self.is_whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            word = "an integer" if self.is_whole else "a number"
            raise bad(f"'{name}' is {_shown(value)}; it must be {word}.", param=name)
        if not self.lowest <= value <= self.highest:
            raise bad(f"'{name}' is {value}; it must be from {self.lowest} to {self.highest}.", param=name)
        return value


INT32 = 2**31 - 1
NUMBERS = {
    "max_tokens": Number(1, INT32, is_whole=True),
    "max_completion_tokens": Number(1, INT32, is_whole=True),
    "temperature": Number(0, 2),
    "top_p": Number(0, 1),
    "n": Number(1, 16, is_whole=True),
    "presence_penalty": Number(-2, 2),
    "frequency_penalty": Number(-2, 2),
    "seed": Number(-(2**63), 2**63 - 1, is_whole=True),
    # Not OpenAI's, but of every engine's own OpenAI endpoint.
    "top_k": Number(0, INT32, is_whole=True),
    "min_tokens": Number(0, INT32, is_whole=True),
    "repetition_penalty": Number(0.01, 10),
}
COMMON = frozenset(NUMBERS) - {"max_completion_tokens"}
READ = {
    "completion": COMMON | {"model", "prompt", "stream", "stream_options", "stop", "echo", "ignore_eos", "logprobs"},
    "chat": COMMON
    | {"model", "messages", "stream", "stream_options", "stop", "ignore_eos", "response_format", "logprobs"}
    | {"max_completion_tokens"},
}
#: The third is not OpenAI's, but of engines' own endpoints: load tests count tokens by it.
STREAM_OPTIONS = frozenset({"include_usage", "include_obfuscation", "continuous_usage_stats"})
#: Known to OpenAI, of no effect on the answer here.
WITHOUT_EFFECT = frozenset({
    "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier",
    "parallel_tool_calls", "reasoning_effort", "verbosity",
})  # fmt: skip


def _is_empty(value: Any) -> bool:
    return not value


def _is_one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


NO_TOOLS = "Tool calls are not supported by this server; describe the tools in a message and parse the answer's text."
NO_LOGPROBS = "Log probabilities are not available: this model gives text, not the tokens that it is made of."
NO_TOP_LOGPROBS = (
    "Only the log probability of the chosen token is known: 'top_logprobs' can be 0, and 'logprobs' of a completion 0, "
    "or 1 with temperature 0, where the chosen token is the most likely one."
)
#: field -> (what asks for nothing, why anything else is refused)
REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tools": (_is_empty, NO_TOOLS),
    "functions": (_is_empty, NO_TOOLS),
    "tool_choice": (_is_one_of("none", "auto"), NO_TOOLS),
    "function_call": (_is_one_of("none", "auto"), NO_TOOLS),
    "top_logprobs": (_is_one_of(0), NO_TOP_LOGPROBS),
    "logit_bias": (_is_empty, "'logit_bias' is not supported by this server; leave it out."),
    "suffix": (_is_empty, "'suffix' is not supported: the models of this server continue a text at its end."),
    "best_of": (_is_one_of(1), "'best_of' is not supported: it needs log probabilities. Use 'n'."),
    "modalities": (lambda value: value == ["text"], "This server makes text only: 'modalities' can be [\"text\"]."),
    "audio": (_is_empty, "This server makes text only; leave 'audio' out."),
    "prediction": (_is_empty, "'prediction' is not supported by this server; leave it out."),
    "web_search_options": (_is_empty, "This server does not search the web; leave 'web_search_options' out."),
    "store": (_is_one_of(False), "This server stores no answers: 'store' can be false."),
}


def check_names(fields: Fields, kind: str) -> None:
    """Refuse fields that nobody knows, and known ones that ask for what this server cannot do."""
    for name, value in fields.items():
        if name in READ[kind] or name in WITHOUT_EFFECT or value is None:
            continue
        if name not in REFUSED:
            raise bad(f"Unrecognized request argument supplied: {name}", param=name)
        asks_nothing, sentence = REFUSED[name]
        if not asks_nothing(value):
            raise bad(sentence, param=name)


def number(fields: Fields, name: str, default: Any = None) -> Any:
    """Return a number in its range."""
    value = NUMBERS[name].read(fields, name)
    return default if value is None else value


def flag(fields: Fields, name: str) -> bool:
    """Return a boolean, false where there is none."""
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad(f"'{name}' is {_shown(value)}; it must be true or false.", param=name)
    return bool(value)


def text(fields: Fields, name: str) -> str:
    """Return a text that must be there."""
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise missing(name) if value is None else bad(f"'{name}' is {_shown(value)}; it must be a text.", param=name)
    return value


def missing(name: str) -> Refusal:
    """Return the refusal of a request without a field that it needs."""
    return bad(f"You must provide a {name} parameter.", param=name)


def stops(fields: Fields) -> tuple[str, ...]:
    """Return the stop strings: one text or up to four."""
    value = fields.get("stop")
    listed = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(stop, str) for stop in listed):
        raise bad("'stop' must be a text or a list of texts.", param="stop")
    if len(listed) > 4:
        raise bad(f"'stop' has {len(listed)} texts; there may be 4.", param="stop")
    return tuple(stop for stop in listed if stop)


def stream_options(fields: Fields, *, is_stream: bool) -> Fields:
    """Return what a stream is to have besides its text."""
    options = fields.get("stream_options")
    if options is None:
        return {}
    if not is_stream:
        raise bad("'stream_options' is only allowed when 'stream' is true.", param="stream_options")
    if not isinstance(options, dict) or options.keys() - STREAM_OPTIONS:
        raise bad(
            "'stream_options' is an object with 'include_usage' and 'continuous_usage_stats'.", param="stream_options"
        )
    return options


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
