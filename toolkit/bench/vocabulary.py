"""Prompts of an exact number of tokens: words whose tokens were counted once are put together without counting again.

Tokenizers of current models split text before the space of a word and never join two words into one token; whether
one does keep to that is tried before its counts are used.
"""

from __future__ import annotations

import bisect
import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolkit.bench.prompts import WORDS
from toolkit.errors import MissingError, UsageError

#: The same file name in every Hugging Face folder.
TOKENIZER_FILE = "tokenizer.json"
TRIAL_TOKENS = (1, 2, 5, 17, 128, 1500)
Count = Callable[[str], int]


@dataclass(frozen=True)
class Counted:
    """Words in ascending order of their tokens."""

    words: tuple[str, ...]
    tokens: tuple[int, ...]

    def draw(self, dice: random.Random, most: int) -> tuple[str, int]:
        """Return a word of at most so many tokens, and how many it has."""
        place = dice.randrange(bisect.bisect_right(self.tokens, most))
        return self.words[place], self.tokens[place]


@dataclass(frozen=True)
class Vocabulary:
    """Words by what they cost at the beginning of a text and after another word."""

    first: Counted
    inside: Counted

    def made(self, *, seed: int, index: int | str, tokens: int, is_continued: bool = False) -> str:
        """Return prompt INDEX of SEED with exactly so many tokens; a continued one follows a text and a space."""
        dice = random.Random(f"{seed}/{index}")
        words, left, counted = [], max(tokens, 1), self.inside if is_continued else self.first
        while left > 0:
            word, cost = counted.draw(dice, left)
            words.append(word)
            left -= cost
            counted = self.inside
        return " ".join(words)


def read(path: Path) -> Vocabulary:
    """Count the words with a tokenizer: a tokenizer.json, or a folder that has one."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingError(
            "Prompts of an exact length need the library tokenizers, which is not installed.",
            hint="pip install tokenizers",
        ) from error
    file = path / TOKENIZER_FILE if path.is_dir() else path
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the package raises nothing narrower
        raise UsageError(
            f"The tokenizer {file} cannot be read: {error}.", hint=f"Give a folder with the model's {TOKENIZER_FILE}."
        ) from error
    return counted(lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids), name=str(file))


def counted(count: Count, *, name: str) -> Vocabulary:
    """Count every word at the beginning and after another; refuse a tokenizer whose counts do not add up."""
    anchor = WORDS[0]
    words = [*WORDS, *string.ascii_lowercase]
    made = Vocabulary(
        first=_ascending({word: count(word) for word in words}),
        inside=_ascending({word: count(f"{anchor} {word}") - count(anchor) for word in words}),
    )
    if made.first.tokens[:1] != (1,) or made.inside.tokens[:1] != (1,) or not _adds_up(made, count):
        raise UsageError(
            f"Prompts of an exact length cannot be made with {name}: its tokens of words do not add up.",
            hint="Give prompts of your own with --prompts.",
        )
    return made


def _ascending(tokens: dict[str, int]) -> Counted:
    ordered = sorted((cost, word) for word, cost in tokens.items() if cost > 0)
    return Counted(tuple(word for _, word in ordered), tuple(cost for cost, _ in ordered))


def _adds_up(made: Vocabulary, count: Count) -> bool:
    texts = [(tokens, made.made(seed=0, index=tokens, tokens=tokens)) for tokens in TRIAL_TOKENS]
    return all(count(text) == tokens for tokens, text in texts)
