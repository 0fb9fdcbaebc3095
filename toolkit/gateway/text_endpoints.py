"""/v1/completions and /v1/chat/completions."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence

from toolkit.gateway import answering, asking
from toolkit.gateway.answering import Progress
from toolkit.gateway.asking import Ask
from toolkit.gateway.exchange import EVENTS, Exchange
from toolkit.gateway.fields import Fields
from toolkit.gateway.log_probs import Token
from toolkit.gateway.serving import Endpoint, Gateway, Seen
from toolkit.gateway.triton import Described
from toolkit.gateway.wire import DONE, Choice, Usage, Wire


class TextEndpoint(Endpoint):
    """A kind of request for text."""

    def __init__(self, gateway: Gateway, *, name: str, prefix: str, read: Callable[[Fields], Ask]) -> None:
        super().__init__(gateway)
        self.name, self._prefix, self._read = name, prefix, read

    async def answer(self, exchange: Exchange, body: bytes, seen: Seen) -> bytes:
        """Read what is asked for, get a model and a place, and answer."""
        gateway, progress = self.gateway, Progress()
        ask = self._read(asking.document_of(body))
        seen.prompts = ask.prompts
        asked_at = time.monotonic()
        try:
            async with (
                gateway.leases.lease(ask.model, key=seen.key_id) as triton_model,
                gateway.admission.place(seen.key_id),
            ):
                seen.model, seen.queued_s = ask.model, time.monotonic() - asked_at
                return await self._answered(exchange, ask, await gateway.triton.describe(triton_model), progress)
        finally:
            if progress.choices:
                seen.input_tokens, seen.output_tokens = progress.usage.input_tokens, progress.usage.output_tokens
            if progress.first_text_at is not None:
                seen.ttft_s = progress.first_text_at - exchange.received_at

    async def _answered(self, exchange: Exchange, ask: Ask, model: Described, progress: Progress) -> bytes:
        answer_id = f"{self._prefix}-{uuid.uuid4().hex}"
        fingerprint = self.gateway.fingerprint(ask.model)
        wire = Wire(ask, answer_id=answer_id, created=int(time.time()), fingerprint=fingerprint)
        answer = Streamed(exchange, ask, wire, progress) if ask.is_stream else Whole(ask, wire)
        triton = self.gateway.triton
        await answering.generate(triton, model, ask, request_id=answer_id, progress=progress, show=answer.show)
        return await answer.last(progress)


class Whole:
    """An answer that is sent in one piece."""

    def __init__(self, ask: Ask, wire: Wire) -> None:
        self._ask, self._wire = ask, wire
        self._texts: list[list[str]] = [[] for _ in range(ask.choices)]
        self._tokens: list[list[Token]] = [[] for _ in range(ask.choices)]

    async def show(self, index: int, text: str, tokens: Sequence[Token]) -> None:
        """Keep a piece."""
        self._texts[index].append(text)
        self._tokens[index].extend(tokens)

    async def last(self, progress: Progress) -> bytes:
        """Return the answer."""
        choices = [
            Choice(
                text=echoed(self._ask, index) + "".join(texts),
                finish_reason=progress.choices[index].finish_reason,
                tokens=self._tokens[index],
            )
            for index, texts in enumerate(self._texts)
        ]
        return self._wire.whole(choices, progress.usage)


class Streamed:
    """An answer in events. It begins with the first text: until then an error still has its status."""

    def __init__(self, exchange: Exchange, ask: Ask, wire: Wire, progress: Progress) -> None:
        self._exchange, self._ask, self._wire, self._progress = exchange, ask, wire, progress
        self._opened: set[int] = set()

    async def show(self, index: int, text: str, tokens: Sequence[Token]) -> None:
        """Send a piece."""
        opening = b"" if index in self._opened else await self._open(index)
        await self._exchange.piece(opening + self._wire.piece(index, text, self._usage(index), tokens=tokens))

    async def _open(self, index: int) -> bytes:
        self._opened.add(index)
        if not self._exchange.is_begun:
            await self._exchange.begin(200, EVENTS)
        echo = echoed(self._ask, index)
        usage = self._usage(index, is_begun=False)
        return self._wire.opening(index, usage) + (self._wire.piece(index, echo, usage) if echo else b"")

    def _usage(self, index: int, *, is_begun: bool = True) -> Usage | None:
        """Return a choice's token counts so far, where they are asked for."""
        if not self._ask.has_running_usage:
            return None
        choice = self._progress.choices[index]
        return Usage(input_tokens=choice.input_tokens, output_tokens=choice.output_tokens if is_begun else 0)

    async def last(self, progress: Progress) -> bytes:
        """Return the events at the end."""
        events = []
        for index, choice in enumerate(progress.choices):
            if index not in self._opened:
                events.append(await self._open(index))
            events.append(self._wire.ending(index, choice.finish_reason, self._usage(index)))
        events += [self._wire.usage(progress.usage)] if self._ask.has_usage else []
        return b"".join((*events, DONE))


def echoed(ask: Ask, index: int) -> str:
    """Return what an answer repeats of its prompt."""
    return ask.prompts[index // ask.n] if ask.has_echo else ""


def completions(gateway: Gateway) -> TextEndpoint:
    """Return /v1/completions."""
    return TextEndpoint(gateway, name="completions", prefix="cmpl", read=asking.completion)


def chats(gateway: Gateway) -> TextEndpoint:
    """Return /v1/chat/completions."""
    return TextEndpoint(gateway, name="chat", prefix="chatcmpl", read=asking.chat)


def models_document(gateway: Gateway) -> bytes:
    """Return /v1/models."""
    listed = [model_fields(model.name, model.created) for model in gateway.leases.served()]
    return json.dumps({"object": "list", "data": listed}).encode()


def model_fields(name: str, created: int) -> dict[str, object]:
    """Return a model as OpenAI lists it."""
    return {"id": name, "object": "model", "created": created, "owned_by": "trtk"}
