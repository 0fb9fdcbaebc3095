"""Triton's own generate and generate_stream, by the names of the models that are served: what a pool's clients ask."""

from __future__ import annotations

import json
import re
import time
import urllib.parse

import httpx

from toolkit.gateway import misread, refusals
from toolkit.gateway.asking import document_of
from toolkit.gateway.exchange import Exchange
from toolkit.gateway.refusals import Refusal
from toolkit.gateway.serving import Endpoint, Gateway, Seen
from toolkit.gateway.statuses import QUEUE_IS_FULL, queue_is_full

#: So that its answer says how many tokens there were; who asked for something else is not overruled.
ASKED_FOR_THE_AUDIT = ("return_num_input_tokens", "return_num_output_tokens")
COUNTS = tuple(re.compile(rb'"num_%b_tokens":\s*(\d+)' % kind) for kind in (b"input", b"output"))
#: Of an answer: enough for its last message.
TAIL_BYTES = 1 << 16


class Forward(Endpoint):
    """Hands a request on as it is, and its answer back as it comes."""

    def __init__(self, gateway: Gateway, *, action: str, client: httpx.AsyncClient) -> None:
        super().__init__(gateway)
        self.name, self._client = action, client

    def error_body(self, refusal: Refusal) -> bytes:
        """Return an error as Triton writes it."""
        return json.dumps({"error": str(refusal)}).encode()

    async def answer(self, exchange: Exchange, body: bytes, seen: Seen) -> bytes:
        """Forward through the lease; Triton's status and words are the client's."""
        name, gateway = exchange.path_params["model"], self.gateway
        document = document_of(body)  # Triton answers what is no JSON with 500, though it is the client's fault
        if gateway.config.audit:
            body = json.dumps({**dict.fromkeys(ASKED_FOR_THE_AUDIT, True), **document}).encode()
        if gateway.config.audit and gateway.config.audit.has_prompts:
            seen.prompts = (body.decode(errors="replace"),)
        asked_at = time.monotonic()
        async with gateway.leases.lease(name, key=seen.key_id) as triton_model, gateway.admission.place(seen.key_id):
            seen.model, seen.queued_s = name, time.monotonic() - asked_at
            path = f"/v2/models/{urllib.parse.quote(triton_model, safe='')}/{self.name}"
            try:
                return await self._passed_on(exchange, path, body, seen)
            except httpx.TransportError as error:
                raise Refusal(
                    refusals.UNAVAILABLE, "The model server does not answer; it may be starting or stopped."
                ) from error

    async def _passed_on(self, exchange: Exchange, path: str, body: bytes, seen: Seen) -> bytes:
        async with self._client.stream("POST", path, content=body) as reply:
            if reply.status_code != 200:
                raise _refused(reply.status_code, await reply.aread())
            kind = reply.headers.get("content-type", "application/json").encode()
            await exchange.begin(200, [(b"content-type", kind)])
            tail = b""
            try:
                async for piece in reply.aiter_raw():
                    if seen.ttft_s is None:
                        seen.ttft_s = time.monotonic() - exchange.received_at
                    tail = (tail + piece)[-TAIL_BYTES:]
                    await exchange.piece(piece)
            finally:
                seen.input_tokens, seen.output_tokens = (_last(pattern, tail) for pattern in COUNTS)
        return b""


def _last(pattern: re.Pattern[bytes], text: bytes) -> int | None:
    """Return the last count of a kind: of a stream, the messages count up."""
    found = pattern.findall(text)
    return int(found[-1]) if found else None


def _refused(status: int, body: bytes) -> Refusal:
    try:
        sentence = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        sentence = f"The model server answered with status {status}."
    if QUEUE_IS_FULL.search(sentence):  # 2.51 says 400 of whatever a model answers
        return queue_is_full()
    if status == 500 and misread.is_misread(body):
        status = 400
    kind = refusals.Kind(status, "invalid_request_error" if status < 500 else "server_error")
    return Refusal(kind, sentence)
