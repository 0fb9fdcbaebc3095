"""Names in a config.pbtxt, even in one that is still a template: `${max_batch_size}` is no protobuf text yet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

NAME = re.compile(r'\bname\s*:\s*"([^"]*)"')
KEY = re.compile(r'\bkey\s*:\s*"([^"]*)"')
#: A string, a comment, a placeholder, a word, a bracket; anything else separates.
TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|#[^\n]*|\$\{[^}]*\}|\w+|[\[\]{}]')
OPENING, CLOSING = "[{", "]}"


@dataclass(frozen=True, kw_only=True)
class ConfigNames:
    """The names that a model's configuration declares."""

    inputs: frozenset[str]
    outputs: frozenset[str]
    parameters: frozenset[str]


def names_in(text: str) -> ConfigNames:
    """Return the tensors and parameter keys of a configuration or its template."""
    sections: dict[str, list[str]] = {"input": [], "output": [], "parameters": []}
    for word, body in _blocks(text):
        if word in sections:
            sections[word].append(body)
    return ConfigNames(
        inputs=frozenset(NAME.findall(" ".join(sections["input"]))),
        outputs=frozenset(NAME.findall(" ".join(sections["output"]))),
        parameters=frozenset(KEY.findall(" ".join(sections["parameters"]))),
    )


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield every block at the top: the word before it, and what is in it without comments."""
    depth, word, body = 0, "", list[str]()
    for match in TOKEN.finditer(text):
        token = match[0]
        if token.startswith(("#", "$")):
            continue
        if token in OPENING:
            depth += 1
        elif token in CLOSING:
            depth -= 1
            if depth == 0:
                yield word, " ".join(body)
                body.clear()
        elif depth == 0:
            word = token
            continue
        if depth:
            is_field = text[match.end() :].lstrip()[:1] == ":"
            body.append(f"{token}:" if is_field else token)
