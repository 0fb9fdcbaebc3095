"""What is asked of a server, what came back, and the ear in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from toolkit.bench.answer import Answer, SendFailed

READER_GONE = "reader_gone"
#: Takes each piece of text as it arrives.
OnPiece = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One request: a prompt as it is, or messages for the model's own chat template; None leaves it to the server."""

    request_id: str
    model: str = "ensemble"
    prompt: str = ""
    messages: tuple[Mapping[str, str], ...] = ()
    max_tokens: int = 256
    is_streaming: bool = True
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def settings(self) -> dict[str, int | float]:
        """Return the sampling settings that were given, by OpenAI's names."""
        given = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k, "seed": self.seed}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer and its measures; times are milliseconds on the client's clock."""

    text: str
    model: str
    request_id: str
    input_tokens: int | None  # None: the server does not say
    output_tokens: int
    token_count_source: str  # server; chunks: responses with text, where the server does not count
    finish_reason: str | None
    ttft_ms: float | None
    tpot_ms: float | None
    duration_ms: float


class Hearing:
    """Collects one answer while it arrives."""

    def __init__(self, on_piece: OnPiece) -> None:
        self.answer = Answer()
        self.model: str | None = None  # where the server chose it
        self.finish_reason: str | None = None
        self._on_piece = on_piece
        self._pieces: list[str] = []
        self._asked_at = time.perf_counter()

    def sent(self) -> None:
        """Start the clock: the request leaves now."""
        self._asked_at = time.perf_counter()

    def add(self, text: str, *, now: float | None = None, count: int | None = None) -> None:
        """Take one response."""
        self.answer.add(time.perf_counter() if now is None else now, has_text=bool(text), count=count, chars=len(text))
        if text:
            self._pieces.append(text)
            try:
                self._on_piece(text)
            except BrokenPipeError as error:  # nobody reads on: the request ends like a failed one, and is taken back
                raise SendFailed(READER_GONE, "Nobody reads the answer.") from error

    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(self._pieces)

    def reply(self, question: Question) -> Reply:
        """Return what was heard."""
        tokens, first_tokens, source = self.answer.tokens(question.max_tokens)
        first, last = self.answer.first, self.answer.last
        later = tokens - first_tokens
        has_gaps = first is not None and last is not None and later > 0
        return Reply(
            text=self.text,
            model=self.model or question.model,
            request_id=question.request_id,
            input_tokens=self.answer.input_tokens,
            output_tokens=tokens,
            token_count_source=source,
            finish_reason=self.finish_reason,
            ttft_ms=None if first is None else 1000 * (first - self._asked_at),
            tpot_ms=1000 * ((last or 0) - (first or 0)) / later if has_gaps else None,
            duration_ms=1000 * (time.perf_counter() - self._asked_at),
        )
