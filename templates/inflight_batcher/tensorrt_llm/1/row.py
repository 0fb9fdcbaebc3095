"""One sequence that the pipeline works on: what it made so far, where it ends, and what of it is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from asked import Asked
from detokenizer import REPLACEMENT, SILENT, Boundary, Detokenizer
from replies import Reply
from served import Refused

#: (row, tokens that must not come next) → a handle of the pipeline.
Begin = Callable[["Row", set[int]], Any]


class Words:
    """The words that end a sequence, and those that it must not contain."""

    def __init__(self, asked: Asked, detokenizer: Detokenizer, classes: bytearray) -> None:
        self.detokenizer = detokenizer
        singles = {word[0] for word in asked.stop_words if len(word) == 1}
        # Tokens without a text are ends like end_id; the pipeline watches for these itself.
        self.ends = {token for token in singles if token < len(classes) and classes[token] == SILENT}
        self.ends |= {asked.end_id} if asked.end_id >= 0 else set()
        self.stops = [word for word in asked.stop_words if len(word) > 1 or word[0] not in self.ends]
        texts = {detokenizer.text(word) for word in self.stops}
        self.texts = sorted(text for text in texts if text and REPLACEMENT not in text)
        self.window = max((len(text.encode()) for text in self.texts), default=0) + 1
        self.bad = asked.bad_words

    def stop(self, tokens: list[int]) -> bool:
        """Whether the last token completes a stop word: its tokens, or its text however it is cut into tokens."""
        if not self.stops:
            return False
        if any(tokens[-len(word) :] == word for word in self.stops):
            return True
        text = self.detokenizer.text(tokens[-self.window :])
        return any(word in text for word in self.texts)

    def forbid(self, tokens: list[int]) -> bool:
        """Whether the last token completes a bad word."""
        return any(tokens[-len(word) :] == word for word in self.bad)

    def banned_after(self, tokens: list[int]) -> set[int]:
        """Return the tokens that would complete a bad word."""
        return {word[-1] for word in self.bad if len(word) == 1 or tokens[1 - len(word) :] == word[:-1]}


class Row:
    """One sequence, from the pipeline to its client."""

    def __init__(self, reply: Reply, asked: Asked, words: Words, boundary: Boundary | None) -> None:
        self.reply, self.asked, self.words, self.boundary = reply, asked, words, boundary
        self.begin: Begin
        self.handle: Any = None
        self.tokens: list[int] = []
        self.log_probs: list[float] = []
        self.sent = 0
        self.next_at = 1  # the first token leaves at once
        self.is_done = self.has_answered = self.has_begun = False
        self.finish_reason = ""
        self.scheduled_ns = self.first_token_ns = self.last_token_ns = 0

    def start(self, begin: Begin) -> None:
        """Hand the sequence to the pipeline."""
        self.begin = begin
        self.handle = begin(self, set())
        self.scheduled_ns = time.time_ns()

    def collect(self) -> None:
        """Take what the last step made."""
        import openvino_genai

        unfinished = openvino_genai.GenerationFinishReason.NONE
        handle = self.handle
        while handle is self.handle and handle.can_read():
            for output in handle.read().values():
                log_probs = output.generated_log_probs if self.asked.has_log_probs else ()
                for index, token in enumerate(output.generated_ids):
                    if self.is_done or handle is not self.handle:
                        break
                    self._take(token, log_probs[index : index + 1])
                if output.finish_reason != unfinished and handle is self.handle and not self.is_done:
                    self._ended(is_long=output.finish_reason == openvino_genai.GenerationFinishReason.LENGTH)
        if not self.is_done and not self.has_begun:
            self._check_room()

    def _take(self, token: int, log_prob: Sequence[float]) -> None:
        self.has_begun = True
        if token in self.words.ends:
            self.finish("stop")
            return
        if self.words.bad and self.words.forbid([*self.tokens, token]):
            self._go_on(self.words.banned_after(self.tokens))
            return
        now = time.time_ns()
        self.first_token_ns = self.first_token_ns or now
        self.last_token_ns = now
        self.tokens.append(token)
        self.log_probs.extend(log_prob)
        if self.boundary:
            self.boundary.add(token)
        if self.words.stop(self.tokens):
            self.finish("stop")
            self.handle.stop()

    def _ended(self, *, is_long: bool) -> None:
        """End with the pipeline, unless it only met a token that was banned for one step and is allowed now."""
        if is_long or len(self.tokens) >= self.asked.max_tokens:
            self.finish("length")
        elif self.words.bad:
            self._go_on(set())
        else:
            self.finish("stop")

    def _go_on(self, banned: set[int]) -> None:
        """Begin anew after the tokens so far, with some that must not come next: the pipeline has no other way."""
        self.handle.stop()
        self.handle, self.has_begun = self.begin(self, banned), False

    def finish(self, reason: str) -> None:
        """End the sequence: stop, length or cancelled."""
        self.is_done, self.finish_reason = True, reason

    def _check_room(self) -> None:
        import openvino_genai

        if self.handle.get_status() == openvino_genai.GenerationStatus.IGNORED:
            raise Refused(
                f"The KV cache has no room for a prompt of {len(self.asked.prompt)} tokens; raise"
                " max_tokens_in_paged_kv_cache or kv_cache_bytes."
            )

    def send(self, interval: int) -> None:
        """Send what is certain, when it is due; all of it when the row is done."""
        if self.is_done:
            self._send(len(self.tokens))
        elif self.boundary and self.boundary.certain >= self.next_at:
            # Streams that began together are spread over the steps, so that their messages do not come in bursts.
            self.next_at = self.boundary.certain + (interval if self.sent else 1 + id(self) // 64 % interval)
            self._send(self.boundary.certain)

    def _send(self, until: int) -> None:
        first, self.sent = self.sent, until
        tokens = self.tokens[first:until]
        if self.asked.includes_input and not self.has_answered:
            tokens = [*self.asked.prompt.tolist(), *tokens]
        self.has_answered = True
        self.reply.send(self, tokens, first=first, is_last=self.is_done)
