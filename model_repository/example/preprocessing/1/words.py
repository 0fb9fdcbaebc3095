"""Words of a request as the tokens that TensorRT-LLM looks for, favours or avoids."""

from __future__ import annotations

from typing import Any

import numpy as np
from served import Refused, text_of

#: Each token of an answer is compared with every word.
MOST_WORDS, LONGEST_WORD = 256, 1024


class Words:
    """Spells words with a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def table(self, asked: np.ndarray | None, always: list[list[int]], batch: int) -> np.ndarray:
        """Return word lists as TensorRT-LLM reads them: [rows, 2, width], tokens above, ends below, padded with -1."""
        rows = asked.reshape(batch, -1) if asked is not None else [[]] * batch
        lists = [[word for item in limited(row) for word in self.spellings(item)] + always for row in rows]
        width = max(1, *(sum(map(len, words)) for words in lists))
        table = np.full((batch, 2, width), -1, np.int32)
        table[:, 0, :] = 0
        for row, words in enumerate(lists):
            flat = [token for word in words for token in word]
            table[row, 0, : len(flat)] = flat
            table[row, 1, : len(words)] = np.cumsum([len(word) for word in words])
        return table

    def spellings(self, item: bytes) -> list[list[int]]:
        """Return a word's tokens at the start of a text and after a space: tokenizers tell the two apart."""
        text = text_of(item, "a stop or bad word")
        if len(text) > LONGEST_WORD:
            raise Refused(f"A stop or bad word has {len(text)} characters; it may have {LONGEST_WORD}.")
        forms = [text] if text[:1].isspace() else [text, f" {text}"]
        made = [self.tokenizer.encode(form, add_special_tokens=False).ids for form in forms]
        return [word for index, word in enumerate(made) if word and word not in made[:index]]

    def bias(self, asked: dict[str, np.ndarray], batch: int) -> np.ndarray:
        """Return a weight for every token of the vocabulary, or nothing where no words are given."""
        words = asked.get("EMBEDDING_BIAS_WORDS", np.empty(0)).reshape(-1)
        weights = asked.get("EMBEDDING_BIAS_WEIGHTS", np.empty(0)).reshape(-1)
        if len(words) != len(weights):
            raise Refused(f"embedding_bias_words has {len(words)} items and embedding_bias_weights {len(weights)}.")
        if not np.isfinite(weights).all():
            raise Refused("embedding_bias_weights has a value that is no number.")
        if not any(words):
            return np.zeros((batch, 0), np.float32)
        table = np.zeros((batch, self.tokenizer.get_vocab_size()), np.float32)
        per_row = len(words) // batch
        for index, (item, weight) in enumerate(zip(words, weights, strict=True)):
            for word in self.spellings(item) if item else ():
                table[index // per_row, word] += weight
        return table


def limited(row: Any) -> list[bytes]:
    """Return the words of a row that are not empty; more than can be watched for are refused."""
    words = [item for item in row if item]
    if len(words) > MOST_WORDS:
        raise Refused(f"{len(words)} stop or bad words are given; {MOST_WORDS} at most can be watched for.")
    return words
