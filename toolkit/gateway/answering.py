"""One request for text, answered: a stream of Triton's for each choice, and what is counted on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from toolkit.gateway.asking import Ask
from toolkit.gateway.fields import NO_LOGPROBS
from toolkit.gateway.log_probs import Alignment, Token
from toolkit.gateway.refusals import bad
from toolkit.gateway.stops import StopCutter
from toolkit.gateway.triton import WANTS_LOG_PROBS, Described, Piece, Triton, Value
from toolkit.gateway.wire import Usage

#: Takes a choice's index, its next piece of text, and the tokens of it, where they are asked for.
Show = Callable[[int, str, Sequence[Token]], Awaitable[None]]


@dataclass(slots=True)
class Counted:
    """What was seen of one choice."""

    has_running_totals: bool  # as the model has
    input_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str = ""

    def take(self, piece: Piece) -> None:
        """Count what a message says; a message that says nothing changes nothing."""
        self.input_tokens = piece.input_tokens or self.input_tokens
        if piece.output_tokens:
            self.output_tokens = (
                piece.output_tokens if self.has_running_totals else self.output_tokens + piece.output_tokens
            )
        self.finish_reason = piece.finish_reason or self.finish_reason


@dataclass
class Progress:
    """What was seen of a request: also true of one that broke off."""

    choices: list[Counted] = field(default_factory=list)
    first_text_at: float | None = None
    n: int = 1

    @property
    def usage(self) -> Usage:
        """Return the token counts; a prompt counts once, however many answers it gets."""
        return Usage(
            input_tokens=sum(choice.input_tokens for choice in self.choices[:: self.n]),
            output_tokens=sum(choice.output_tokens for choice in self.choices),
        )


def values_of(ask: Ask, prompt: str, model: Described, *, seed: int) -> dict[str, Value]:
    """Return the tensors of one choice's request; raises Refusal for what the model has no input for."""
    values: dict[str, Value] = {"max_tokens": ask.max_tokens, "stream": True, "exclude_input_in_output": True}
    if ask.is_chat and "messages" not in model.inputs:
        raise bad(f"The model {ask.model!r} takes no messages; use /v1/completions.", param="messages")
    values |= {"messages": prompt, "text_input": ""} if ask.is_chat else {"text_input": prompt}
    values |= {"stop_words": ask.stops} if ask.stops else {}
    values |= {"seed": seed} if "top_k" not in ask.sampling or ask.sampling["top_k"] != 1 else {}
    values |= {"return_num_input_tokens": True, "return_num_output_tokens": True, **ask.sampling}
    if ask.guide is not None:
        values |= {"guided_decoding_guide_type": ask.guide.kind, "guided_decoding_guide": ask.guide.text}
    if ask.has_log_probs:
        if not model.has_log_probs:
            raise bad(NO_LOGPROBS, param="logprobs")
        values |= {WANTS_LOG_PROBS: True}
    for name in values:
        if name not in model.inputs:
            raise bad(f"The model {ask.model!r} has no input {name!r}: it cannot do what was asked for.", param=name)
    return values


async def generate(
    triton: Triton, model: Described, ask: Ask, *, request_id: str, progress: Progress, show: Show
) -> None:
    """Make every choice of a request, side by side; the first that fails ends the others."""
    progress.n = ask.n
    progress.choices = [Counted(model.has_running_totals) for _ in range(ask.choices)]
    requests = []
    for index in range(ask.choices):
        values = values_of(ask, ask.prompts[index // ask.n], model, seed=(ask.seed + index % ask.n) % 2**64)
        requests.append(triton.request(model, values, f"{request_id}-{index}"))
    if len(requests) == 1:
        await _choice(triton, requests[0], ask, index=0, progress=progress, show=show)
        return
    tasks = [
        asyncio.ensure_future(_choice(triton, request, ask, index=index, progress=progress, show=show))
        for index, request in enumerate(requests)
    ]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _choice(triton: Triton, request: bytes, ask: Ask, *, index: int, progress: Progress, show: Show) -> None:
    cutter, counted = StopCutter(ask.stops), progress.choices[index]
    aligned = Alignment(len(ask.prompts[index // ask.n]) if ask.has_echo else 0) if ask.has_log_probs else None
    async with aclosing(triton.pieces(request)) as pieces:
        async for piece in pieces:
            counted.take(piece)
            come = piece.text.decode(errors="replace")
            if aligned is not None:
                aligned.take(come, piece.log_probs)
            if text := cutter.feed(come):
                progress.first_text_at = progress.first_text_at or time.monotonic()
                await show(index, text, aligned.shown(text) if aligned else ())
            if cutter.is_done:  # leaving the stream ends the engine's work
                counted.finish_reason = "stop"
                return
    if rest := cutter.rest():
        await show(index, rest, aligned.shown(rest) if aligned else ())
    if counted.finish_reason not in {"stop", "length"}:
        counted.finish_reason = "length" if counted.output_tokens >= ask.max_tokens else "stop"
