"""A chat as text: messages in JSON through the model's own template, in a sandbox, with what Hugging Face gives."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from served import Refused

#: Templates of text models read `content` as a string; those that loop over it take a list of parts.
PARTS_LOOP = re.compile(r"for\s+\w+\s+in\s+\w+(\.content|\[.content.\])")
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Generation(Extension):
    """`{% generation %}` marks what an assistant said, for training; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Any) -> Any:
        """Return the block's content."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Chat:
    """The template of one model; `of` makes it from the tokenizer's folder."""

    def __init__(self, template: str, tokens: dict[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
        self.template = environment.from_string(template)
        self.tokens = tokens
        self.takes_parts = bool(PARTS_LOOP.search(template))

    @classmethod
    def of(cls, folder: Path) -> Chat | None:
        """Read a tokenizer's folder; None where no template is there."""
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        own = folder / "chat_template.jinja"
        template = own.read_text(encoding="utf-8") if own.is_file() else settings.get("chat_template")
        if isinstance(template, list):  # several by name, such as "default", "tool_use", "rag"
            template = {each["name"]: each["template"] for each in template}.get("default")
        tokens = {name: settings.get(name) for name in SPECIAL_TOKENS}
        texts = {name: each["content"] if isinstance(each, dict) else each for name, each in tokens.items() if each}
        return cls(template, texts) if template else None

    def text(self, document: str) -> str:
        """Return the prompt that asks for the next answer; raises Refused for what is no chat or not for this model."""
        messages = [self._message(each, place) for place, each in enumerate(messages_of(document))]
        try:
            prompt: str = self.template.render(messages=messages, add_generation_prompt=True, **self.tokens)
            prompt.encode()
        except UnicodeEncodeError as error:  # JSON can escape halves of characters
            raise Refused("messages has half of a character, such as \\ud800 alone.") from error
        except jinja2.TemplateError as error:
            raise Refused(f"The model's chat template refuses these messages: {_sentence(error)}") from error
        # Templates compute with what they are given: a field that is missing or of another kind.
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
            raise Refused(f"The model's chat template cannot render these messages: {_sentence(error)}") from error
        return prompt

    def _message(self, message: dict[str, Any], place: int) -> dict[str, Any]:
        content = message.get("content")
        if not isinstance(content, list):
            return message
        texts = [_text_of(part, place) for part in content]
        return message if self.takes_parts else {**message, "content": "\n".join(texts)}


def messages_of(document: str) -> list[dict[str, Any]]:
    """Read the JSON of a chat: a list of objects with a role and a content."""
    try:
        messages = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise Refused(f"messages is not JSON: {_sentence(error)}") from error
    if not isinstance(messages, list) or not messages:
        raise Refused("messages must be a JSON list with at least one message.")
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refused(f'messages[{place}] must be an object with a "role" and a "content".')
        content = message.get("content")
        has_other = content is None and len(message) > 1  # such as an assistant's tool_calls
        if not (has_other or isinstance(content, (str, list))):
            raise Refused(f"messages[{place}].content must be text or a list of parts.")
    return messages


def _text_of(part: Any, place: int) -> str:
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind != "text" or not isinstance(part.get("text"), str):
        raise Refused(f"messages[{place}].content has a part of type {kind!r}; this repository serves text.")
    return str(part["text"])


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(".") + "."


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(layout: str) -> str:
    return datetime.datetime.now().strftime(layout)  # noqa: DTZ005 - the server's own day, as Hugging Face gives it


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """Replace jinja2's own, which escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)
