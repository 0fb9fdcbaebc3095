"""Prompts of about so many tokens, made from a seed: no two alike, so that prefix caching does not flatter."""

from __future__ import annotations

import json
import random
from pathlib import Path

from toolkit.errors import UsageError

#: Short common words: one token each, with the space before them, in the vocabularies of current models.
PLAIN = (
    "the of and to in that was for with his this from they have not are but had her she which you one all were "
    "their there been has when who will more out would about into than its time only could new them man some "
    "these then two first may any like now my such make over our even most me state after also made many did must "
    "before back see through way where get much go well your know should down work year because come people just "
    "say each those take day good how long little use very still own last might great here off again place right "
    "old house world high every another between under never school same kind left around water hand head set "
    "large side found group always give point country next order part small city home room number course public "
    "think end something fact though nothing line business case table several program member thing second money "
    "question change example power present interest system social feel white family land moment reason road death "
    "child letter music morning heart story book night paper light sound field street river window company door"
)
WORDS = PLAIN.split()

SENTENCE_WORDS = 11


def made(*, seed: int, index: int | str, tokens: int) -> str:
    """Return prompt INDEX of SEED: sentences of random common words, a word or a full stop per token."""
    choose = random.Random(f"{seed}/{index}")
    sentences, left = [], max(tokens, 1)
    while left > 0:
        length = max(min(SENTENCE_WORDS, left - 1), 1)
        sentences.append(" ".join(choose.choices(WORDS, k=length)) + "." * (left > 1))
        left -= length + 1
    return " ".join(sentences)


def read(path: Path) -> tuple[str, ...]:
    """Return the prompts of a file: one a line, or JSON lines with a `prompt` each."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The prompts in {path} cannot be read: {error}.", hint="Give a UTF-8 text file.") from error
    prompts = tuple(_prompt_in(line, path) for line in lines if line.strip())
    if not prompts:
        raise UsageError(f"{path} has no prompts.", hint='Write one a line, or JSON lines {"prompt": "..."}.')
    return prompts


def _prompt_in(line: str, path: Path) -> str:
    if not line.lstrip().startswith("{"):
        return line
    try:
        return str(json.loads(line)["prompt"])
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"A line of {path} is not JSON with a prompt: {line[:60]!r}.", hint='Write {"prompt": "..."} a line.'
        ) from error
