"""OpenAI's answers as bytes: what stays the same in a stream is made once, and each piece only fills in its text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.gateway.asking import Ask
from toolkit.gateway.log_probs import Token, of_chat, of_completion

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts of a whole request."""

    input_tokens: int
    output_tokens: int

    def document(self) -> dict[str, Any]:
        """Return them as OpenAI names them."""
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One finished answer."""

    text: str
    finish_reason: str
    tokens: Sequence[Token] = ()


class Wire:
    """Writes the answers to one request."""

    def __init__(self, ask: Ask, *, answer_id: str, created: int, fingerprint: str) -> None:
        self._is_chat, self._has_log_probs, self._has_top = ask.is_chat, ask.has_log_probs, ask.has_top_log_probs
        head = {"id": answer_id, "object": "", "created": created, "model": ask.model}
        self._head = {**head, "system_fingerprint": fingerprint}
        chunk = {**self._head, "object": "chat.completion.chunk" if ask.is_chat else "text_completion"}
        self._prefix = b"data: " + json.dumps(chunk)[:-1].encode() + b', "choices": '
        self._close = b', "usage": null}\n\n' if ask.has_usage else b"}\n\n"
        # Chats carry their text in an object of its own.
        opening, closing = (b'"delta": {"content": ', b"}") if ask.is_chat else (b'"text": ', b"")
        self._middle = b", " + opening
        self._closing = closing
        self._after = closing + b', "logprobs": null, "finish_reason": null}]'
        self._last = b', "logprobs": null, "finish_reason": '

    def opening(self, index: int, usage: Usage | None = None) -> bytes:
        """Return a chat's first event, which says who speaks; completions have none."""
        if not self._is_chat:
            return b""
        delta = b', "delta": {"role": "assistant", "content": ""}'
        return self._choice(index) + delta + self._last + b"null}]" + self._closed(usage)

    def piece(self, index: int, text: str, usage: Usage | None = None, *, tokens: Sequence[Token] = ()) -> bytes:
        """Return the event of a piece of text."""
        after = self._after
        if self._has_log_probs:
            said = json.dumps(self._log_probs(tokens)).encode()
            after = self._closing + b', "logprobs": ' + said + b', "finish_reason": null}]'
        return self._choice(index) + self._middle + json.dumps(text).encode() + after + self._closed(usage)

    def _log_probs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self._has_log_probs:
            return None
        return of_chat(tokens) if self._is_chat else of_completion(tokens, has_top=self._has_top)

    def ending(self, index: int, finish_reason: str, usage: Usage | None = None) -> bytes:
        """Return a choice's last event."""
        empty = b', "delta": {}' if self._is_chat else b', "text": ""'
        reason = json.dumps(finish_reason).encode()
        return self._choice(index) + empty + self._last + reason + b"}]" + self._closed(usage)

    def _closed(self, usage: Usage | None) -> bytes:
        """Return an event's end, with the token counts so far where there are any."""
        return self._close if usage is None else b', "usage": %b}\n\n' % json.dumps(usage.document()).encode()

    def _choice(self, index: int) -> bytes:
        return b'%b[{"index": %d' % (self._prefix, index)

    def usage(self, usage: Usage) -> bytes:
        """Return the event with the token counts."""
        return self._prefix + b'[], "usage": ' + json.dumps(usage.document()).encode() + b"}\n\n"

    def whole(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        """Return an answer that is not streamed."""
        listed = [self._whole_choice(index, choice) for index, choice in enumerate(choices)]
        name = "chat.completion" if self._is_chat else "text_completion"
        return json.dumps({**self._head, "object": name, "choices": listed, "usage": usage.document()}).encode()

    def _whole_choice(self, index: int, choice: Choice) -> dict[str, Any]:
        end = {"logprobs": self._log_probs(choice.tokens), "finish_reason": choice.finish_reason}
        if self._is_chat:
            message = {"role": "assistant", "content": choice.text, "refusal": None}
            return {"index": index, "message": message, **end}
        return {"index": index, "text": choice.text, **end}
