"""What secrets look like, in whatever text they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from toolkit.errors import UsageError

SHAPES = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "an NGC key": re.compile(r"\bnvapi-[A-Za-z0-9_-]{20,}"),
    "a key of trtk's gateway": re.compile(r"\btrtk-[0-9a-f]{8}-[A-Za-z0-9_-]{43}"),
    "an OpenAI key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{30,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a bearer token": re.compile(r"\bBearer\s+[A-Za-z0-9._~+/-]{20,}"),
    "a password in a URL": re.compile(r"://[^/\s:@{}$]+:[^/\s:@{}$]+@"),
}
#: A name that says what its value is; a reference, a file's path or nothing is no secret.
NAMED = re.compile(
    r"""(?im)^[ \t-]*["']?[\w.-]*(?:password|passwd|secret_key|api_key|apikey|token)["']?[ \t]*[:=]"""
    r"""[ \t]*["']?([^\s"'#]+)"""
)
HARMLESS = re.compile(r"^(?:\$|\{|<|/|var\.|data\.|local\.|file\(|true|false|null|~|\||>|[0-9]+$|\.|random_|[A-Z_]+$)")


def shaped(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, what) of every secret that is known by its shape."""
    for what, shape in SHAPES.items():
        for found in shape.finditer(text):
            yield line_of(text, found.start()), what


def named(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, what) of every value whose name says that it is a secret."""
    for found in NAMED.finditer(text):
        if not HARMLESS.match(found[1]):
            yield line_of(text, found.start(1)), "a secret's value"


def line_of(text: str, position: int) -> int:
    """Return the line of a position, from 1."""
    return text.count("\n", 0, position) + 1


def need_none(texts: Mapping[str, str]) -> None:
    """Raise UsageError before anything is written where a file would hold a secret that somebody gave."""
    for name, text in texts.items():
        for line, what in shaped(text):
            raise UsageError(
                f"{name}:{line} would hold {what}, which nothing that is written may.",
                hint="Leave it out of the options and the --values file; README.md says which Secret to make.",
            )
