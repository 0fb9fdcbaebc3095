"""What a client asks for, read from OpenAI's JSON; wrong requests are refused in a sentence that names the field."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.gateway import fields as known
from toolkit.gateway.fields import Fields, flag, number
from toolkit.gateway.refusals import bad

#: OpenAI's default for completions; a chat goes on until the model ends it or the context is full.
COMPLETION_TOKENS = 16
#: Understood by the models as "as many as there is room for".
AS_MANY_AS_FIT = 2**31 - 1
#: Answers to one request: prompts times `n`.
MOST_CHOICES = 64


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What the text must conform to."""

    kind: str  # of guided_decoding_guide_type: json, json_schema
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request for text."""

    model: str
    is_chat: bool
    prompts: tuple[str, ...]  # of a chat, one: its messages as JSON
    n: int
    max_tokens: int
    stops: tuple[str, ...]
    is_stream: bool
    has_usage: bool  # a stream ends with token counts
    has_running_usage: bool  # and each of its events has those of its choice so far
    has_echo: bool
    seed: int
    sampling: Mapping[str, int | float] = field(default_factory=dict)  # by the names of Triton's tensors
    guide: Guide | None = None
    has_log_probs: bool = False
    has_top_log_probs: bool = False  # of a completion: the chosen tokens are the most likely ones

    @property
    def choices(self) -> int:
        """Return how many answers are made."""
        return len(self.prompts) * self.n


def document_of(body: bytes) -> dict[str, Any]:
    """Return a request's JSON object."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise bad(f"We could not parse the JSON body of your request: {error}.") from error
    if not isinstance(document, dict):
        raise bad("The body of a request is a JSON object.")
    return document


def completion(fields: Fields) -> Ask:
    """Read a request of /v1/completions."""
    known.check_names(fields, "completion")
    return _ask(
        fields,
        is_chat=False,
        prompts=_prompts(fields),
        max_tokens=number(fields, "max_tokens", COMPLETION_TOKENS),
        has_echo=flag(fields, "echo"),
        has_log_probs=fields.get("logprobs") is not None,
        has_top_log_probs=_has_top(fields),
    )


def _has_top(fields: Fields) -> bool:
    """Read `logprobs` of a completion: how many of the most likely tokens to tell."""
    asked = known.Number(0, 5, is_whole=True).read(fields, "logprobs")
    if asked and not (asked == 1 and _sampling(fields).get("top_k") == 1):
        raise bad(known.NO_TOP_LOGPROBS, param="logprobs")
    return bool(asked)


def chat(fields: Fields) -> Ask:
    """Read a request of /v1/chat/completions."""
    known.check_names(fields, "chat")
    older = number(fields, "max_tokens", AS_MANY_AS_FIT)
    return _ask(
        fields,
        is_chat=True,
        prompts=(json.dumps(_messages(fields), ensure_ascii=False),),
        max_tokens=number(fields, "max_completion_tokens", older),
        guide=_guide(fields),
        has_log_probs=flag(fields, "logprobs"),
    )


def _ask(fields: Fields, **of_its_kind: Any) -> Ask:
    is_stream = flag(fields, "stream")
    options = known.stream_options(fields, is_stream=is_stream)
    has_usage, is_running = flag(options, "include_usage"), flag(options, "continuous_usage_stats")
    seed = number(fields, "seed")
    ask = Ask(
        **{"has_echo": False, **of_its_kind},
        model=known.text(fields, "model"),
        n=number(fields, "n", 1),
        stops=known.stops(fields),
        is_stream=is_stream,
        has_usage=has_usage,
        has_running_usage=has_usage and is_running,
        # The engine's own default is a fixed seed: the same answer each time is not what chance was asked for.
        seed=secrets.randbits(63) if seed is None else seed % 2**64,
        sampling=_sampling(fields),
    )
    for words in (*ask.prompts, *ask.stops):
        _need_utf8(words)
    if ask.choices > MOST_CHOICES:
        raise bad(f"{ask.choices} answers were asked for; one request may ask for {MOST_CHOICES}.", param="n")
    return ask


def _need_utf8(words: str) -> None:
    try:
        words.encode()
    except UnicodeEncodeError as error:
        raise bad(f"The text holds half a surrogate pair, which no UTF-8 has: {error.reason}.") from error


def _sampling(fields: Fields) -> dict[str, int | float]:
    temperature, top_p = number(fields, "temperature", 1.0), number(fields, "top_p", 1.0)
    made: dict[str, int | float] = {}
    if temperature == 0 or top_p == 0:
        made["top_k"] = 1
    else:
        made |= {"temperature": float(temperature), "top_p": float(top_p)}
    for name, neutral in (("presence_penalty", 0), ("frequency_penalty", 0), ("repetition_penalty", 1)):
        value = number(fields, name, neutral)
        made |= {} if value == neutral else {name: float(value)}
    for name in ("top_k", "min_tokens"):
        made |= {name: value} if (value := number(fields, name, 0)) and name not in made else {}
    return made | ({"end_id": -1} if flag(fields, "ignore_eos") else {})


def _prompts(fields: Fields) -> tuple[str, ...]:
    prompt = fields.get("prompt")
    if prompt is None:
        raise known.missing("prompt")
    listed = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(listed, list) or not listed:
        raise bad("'prompt' must be a text or a list of texts.", param="prompt")
    if not all(isinstance(one, str) for one in listed):
        raise bad("'prompt' must be a text or a list of texts; tokens are not taken by this server.", param="prompt")
    if not all(listed):
        raise bad("'prompt' is empty: there is nothing to continue.", param="prompt")
    return tuple(listed)


ROLES = ("system", "developer", "user", "assistant")


def _messages(fields: Fields) -> list[dict[str, str]]:
    messages = fields.get("messages")
    if messages is None:
        raise known.missing("messages")
    if not isinstance(messages, list) or not messages:
        raise bad("'messages' must be a list with at least one message.", param="messages")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: Any, place: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise bad(f"'{place}' must be an object with 'role' and 'content'.", param=place)
    role = message.get("role")
    if role in {"tool", "function"} or message.get("tool_calls") or message.get("function_call"):
        raise bad(known.NO_TOOLS, param=place)
    if role not in ROLES:
        raise bad(f"'{place}.role' is {role!r}; it must be one of {', '.join(ROLES)}.", param=f"{place}.role")
    # `developer` is the newer word for `system`, which chat templates know.
    return {"role": "system" if role == "developer" else role, "content": _content(message.get("content"), place)}


def _content(content: Any, place: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise bad(f"'{place}.content' must be a text or a list of parts.", param=f"{place}.content")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            said = f"parts of type {kind!r} are not" if kind != "text" else "a part without a text is not"
            raise bad(f"In '{place}.content' {said} supported: this server reads text.", param=f"{place}.content")
        texts.append(part["text"])
    return "".join(texts)


def _guide(fields: Fields) -> Guide | None:
    asked = fields.get("response_format")
    if asked is None:
        return None
    kind = asked.get("type") if isinstance(asked, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Guide(kind="json")
    schema = asked.get("json_schema") if kind == "json_schema" else None
    if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        raise bad(
            "'response_format' is an object whose 'type' is text, json_object, or json_schema with a 'json_schema' "
            "that has a 'schema'.",
            param="response_format",
        )
    return Guide(kind="json_schema", text=json.dumps(schema["schema"]))
