"""Nothing secret stands in any file: tokens by their shape, values of Secret objects, keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from toolkit.validation import secret_shapes
from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, outcome

#: Prose and what a program wrote have words like `token:` in them.
PROSE = (".md", ".json")


def run(folder: Folder) -> Outcome:
    """Read every file."""
    return outcome(len(folder.files), (problem for name in folder.files for problem in _problems(folder, name)))


def _problems(folder: Folder, name: str) -> Iterator[Problem]:
    text = folder.text(name)
    found = [*secret_shapes.shaped(text), *(() if name.endswith(PROSE) else secret_shapes.named(text))]
    for line, what in found:
        yield Problem(place=f"{name}:{line}", says=f"{what} stands in it")
    for one in folder.objects:
        if one.file == name and one.kind == "Secret" and _values(one.document):
            yield Problem(place=one.place, says="a Secret carries its values; refer to one that an operator makes")


def _values(document: Mapping[str, object]) -> bool:
    return bool(document.get("data") or document.get("stringData"))


VALIDATOR = Validator(name="secrets", title="no secret in any file", order=70, run=run)
