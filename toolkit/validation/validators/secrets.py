"""Nothing secret stands in any file: tokens by their shape, values of Secret objects, keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, outcome

SHAPES = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "an NGC key": re.compile(r"\bnvapi-[A-Za-z0-9_-]{20,}"),
    "a key of trtk's gateway": re.compile(r"\btrtk-[A-Za-z0-9_-]{32,}"),
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


def run(folder: Folder) -> Outcome:
    """Read every file."""
    return outcome(len(folder.files), (problem for name in folder.files for problem in _problems(folder, name)))


def _problems(folder: Folder, name: str) -> Iterator[Problem]:
    text = folder.text(name)
    for what, shape in SHAPES.items():
        for found in shape.finditer(text):
            yield Problem(place=f"{name}:{_line(text, found.start())}", says=f"{what} stands in it")
    for one in folder.objects:
        if one.file == name and one.kind == "Secret" and _values(one.document):
            yield Problem(place=one.place, says="a Secret carries its values; refer to one that an operator makes")
    if not name.endswith((".md", ".json")):
        for found in NAMED.finditer(text):
            if not HARMLESS.match(found[1]):
                yield Problem(place=f"{name}:{_line(text, found.start(1))}", says="a secret's value stands in it")


def _values(document: Mapping[str, object]) -> bool:
    return bool(document.get("data") or document.get("stringData"))


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


VALIDATOR = Validator(name="secrets", title="no secret in any file", order=70, run=run)
