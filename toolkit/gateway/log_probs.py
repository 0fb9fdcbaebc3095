"""Log probabilities beside the text that they belong to: tokens are told when all of their text is shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer; one that only together with others makes a character has no text of its own."""

    text: str
    log_prob: float  # natural, of the token that was chosen
    offset: int  # characters of the answer before it


class Alignment:
    """Keeps tokens back as long as their text is: what a stop string cuts off has no probabilities either."""

    def __init__(self, offset: int = 0) -> None:
        self._waiting: deque[Token] = deque()
        self._come = self._shown = offset

    def take(self, text: str, log_probs: Sequence[float]) -> None:
        """Take a message's text and the log probabilities of its tokens; of several the first has the text."""
        for index, log_prob in enumerate(log_probs):
            self._waiting.append(Token(text if index == 0 else "", log_prob, self._come))
            self._come += len(text) if index == 0 else 0

    def shown(self, text: str) -> list[Token]:
        """Return the tokens whose text is shown, now that TEXT is."""
        self._shown += len(text)
        ready = []
        while self._waiting and self._waiting[0].offset + len(self._waiting[0].text) <= self._shown:
            ready.append(self._waiting.popleft())
        return ready


def of_chat(tokens: Sequence[Token]) -> dict[str, Any]:
    """Return tokens as chats say them."""
    content = [
        {"token": token.text, "logprob": token.log_prob, "bytes": list(token.text.encode()), "top_logprobs": []}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def of_completion(tokens: Sequence[Token], *, has_top: bool) -> dict[str, Any]:
    """Return tokens as completions say them; the most likely token is known where it is the chosen one."""
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.log_prob for token in tokens],
        "top_logprobs": [{token.text: token.log_prob} for token in tokens] if has_top else None,
        "text_offset": [token.offset for token in tokens],
    }
