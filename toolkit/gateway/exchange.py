"""One HTTP exchange over ASGI: its body in, its answer out, and whether the client is still there."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Coroutine
from typing import Any

from toolkit.gateway import refusals
from toolkit.gateway.bodies import Room
from toolkit.gateway.config import Limits
from toolkit.gateway.refusals import ClientLeft, Refusal

#: What a client may call its request; anything else gets an id of ours.
CLIENT_ID = re.compile(rb"^[\x21-\x7e]{1,128}$")
#: Read past the limit and thrown away: who still sends when the connection closes never sees the answer.
DISCARDED_BYTES = 64 << 20
EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
JSON = [(b"content-type", b"application/json")]
Headers = list[tuple[bytes, bytes]]


class Exchange:
    """What a request's handler talks to."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive, self._send = receive, send
        given = self._headers.get(b"x-request-id", b"")
        self.id = given.decode() if CLIENT_ID.match(given) else uuid.uuid4().hex
        self.path_params: dict[str, str] = scope.get("path_params", {})
        self.received_at = time.monotonic()
        self.is_begun = False

    def header(self, name: bytes) -> str:
        """Return a request header, empty where there is none."""
        return self._headers.get(name, b"").decode("latin-1")

    async def body(self, limits: Limits, room: Room) -> bytes:
        """Return the whole body; raises Refusal when it is too large or too slow, or there is no room for it."""
        try:
            body = await asyncio.wait_for(self._read(limits, room), limits.body_s)
        except asyncio.TimeoutError as error:
            raise Refusal(
                refusals.TIMED_OUT, f"The body of the request did not come within {limits.body_s:g} s."
            ) from error
        self.received_at = time.monotonic()
        return body

    async def _read(self, limits: Limits, room: Room) -> bytes:
        declared = self.header(b"content-length")
        body, size, has_more, refusal = bytearray(), 0, True, None
        too_large = Refusal(refusals.TOO_LARGE, f"The body of a request may have {limits.body_bytes} bytes.")
        if declared.isdigit() and int(declared) > limits.body_bytes:
            refusal = too_large
        while has_more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft("The client left before its request was whole.")
            piece = message.get("body", b"")
            size += len(piece)
            if refusal is None and size > limits.body_bytes:
                refusal = too_large
            elif refusal is None and not room.take(len(piece)):
                words = "Too many large requests at once: there is no room for this one's body. Try again later."
                refusal = Refusal(refusals.TOO_MANY, words, retry_after_s=1)
            if refusal is None:
                body += piece
            else:
                body.clear()
                room.give_back()
            has_more = message.get("more_body", False) and size <= limits.body_bytes + DISCARDED_BYTES
        if refusal is not None:
            raise refusal
        return bytes(body)

    async def while_connected(self, work: Coroutine[Any, Any, bytes], *, timeout_s: float) -> bytes:
        """Return what WORK does; cancel it when the client leaves or the time is up."""
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._left())
        try:
            await asyncio.wait({working, leaving}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            if leaving.done():
                raise ClientLeft("The client left.")
            raise Refusal(refusals.TIMED_OUT, f"The answer was not whole after {timeout_s:g} s.")
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def begin(self, status: int, headers: Headers) -> None:
        """Send the status and the headers."""
        self.is_begun = True
        named = [*headers, (b"x-request-id", self.id.encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": named})

    async def piece(self, body: bytes) -> None:
        """Send a piece of a body that goes on."""
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        """Send the last piece of a body."""
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def answer(self, body: bytes, *, status: int = 200, headers: Headers = JSON) -> None:
        """Send a whole answer."""
        await self.begin(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self.end(body)

    async def refuse(self, refusal: Refusal, body: bytes) -> None:
        """Send an error: as the answer, or as the last event of a stream that has begun."""
        if self.is_begun:
            await self.end(b"data: " + body + b"\n\n")
        else:
            await self.answer(body, status=refusal.kind.status, headers=[*JSON, *refusal.headers()])
