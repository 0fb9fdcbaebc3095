"""Text from tokens, in pieces that add up: the pieces of a stream joined are the text of all its tokens."""

from __future__ import annotations

import re
from typing import Any

REPLACEMENT = "\ufffd"
CLEAN, HELD, SILENT = 0, 1, 2


class Detokenizer:
    """Decodes runs of tokens behind a sentinel, so that a leading space survives in every piece."""

    def __init__(self, tokenizer: Any, *, skip_special_tokens: bool = True) -> None:
        self.tokenizer = tokenizer
        self.skip_special_tokens = skip_special_tokens
        self.sentinel = self.tokenizer.encode("a", add_special_tokens=False).ids[-1]
        self.sentinel_chars = len(self.tokenizer.decode([self.sentinel]))

    def text(self, tokens: list[int]) -> str:
        """Return the text that the tokens add after other text."""
        decoded = self.tokenizer.decode([self.sentinel, *tokens], skip_special_tokens=self.skip_special_tokens)
        return decoded[self.sentinel_chars :]

    def classes(self) -> bytearray:
        """Say of every token whether it ends at a character boundary, must wait for others, or is not shown."""
        size = max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        texts = self.tokenizer.decode_batch([[self.sentinel, token] for token in range(size)])
        kinds = bytearray(CLEAN if REPLACEMENT not in text[self.sentinel_chars :] else HELD for text in texts)
        for token, text in enumerate(texts):
            # SentencePiece's byte tokens decode as a run: only a whole run has one meaning.
            if re.fullmatch("<0x[0-9A-F]{2}>", self.tokenizer.id_to_token(token) or ""):
                kinds[token] = HELD
            elif len(text) == self.sentinel_chars:
                kinds[token] = SILENT
        return kinds


class Boundary:
    """Follows one stream of tokens and knows up to where its text is certain."""

    def __init__(self, detokenizer: Detokenizer, classes: bytearray) -> None:
        self.detokenizer = detokenizer
        self.classes = classes
        self.certain = 0  # tokens whose text no later token can change
        self.pending: list[int] = []

    def add(self, token: int) -> None:
        """Take the next token of the stream."""
        kind = self.classes[token] if token < len(self.classes) else SILENT
        if not self.pending and kind != HELD:
            self.certain += 1
            return
        self.pending.append(token)
        if kind == SILENT or self._is_open(token):
            return
        self.certain += len(self.pending)
        self.pending = []

    def _is_open(self, token: int) -> bool:
        name = self.detokenizer.tokenizer.id_to_token(token)
        is_byte = len(name) == 6 and name.startswith("<0x")
        return is_byte or self.detokenizer.text(self.pending).endswith(REPLACEMENT)
