"""A small gRPC client over HTTP/2: messages are handed on from the socket's callback, with no task or future for each.

Kept because gRPC's own asyncio client costs several times more CPU per message, and the load tester shares the
machine with the server in the tests that matter. Frames and their numbers are RFC 9113's.
"""

from __future__ import annotations

import asyncio
import ssl
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

from toolkit.bench.answer import SendFailed

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5
CANCEL = 8
LARGEST_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_BYTES = 16_384
FRAME_HEAD_BYTES = 9
READ_BYTES = 1 << 16
MESSAGE_HEAD_BYTES = 5
CONNECT_TIMEOUT_S = 10.0
DEADLINE_EXCEEDED = "4"

#: Takes one message and the moment it arrived.
Receive = Callable[[bytes, float], None]


class Call:
    """One request and what comes back for it."""

    __slots__ = ("done", "receive", "received", "status", "window")

    def __init__(self, receive: Receive, window: int) -> None:
        self.receive = receive
        self.window = window
        self.received = b""
        self.status: dict[str, str] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, piece: bytes, now: float) -> None:
        """Hand on every whole message; keep the rest."""
        data = self.received + piece if self.received else piece
        position = 0
        while len(data) - position >= MESSAGE_HEAD_BYTES:
            end = position + MESSAGE_HEAD_BYTES + int.from_bytes(data[position + 1 : position + 5], "big")
            if end > len(data):
                break
            self.hand_on(data[position + MESSAGE_HEAD_BYTES : end], now)
            position = end
        self.received = data[position:]

    def hand_on(self, message: bytes, now: float) -> None:
        """Give a message to whoever asked, and end the call with what they make of it."""
        try:
            if not self.done.done():
                self.receive(message, now)
        except SendFailed as error:
            self.fail(error)

    def fail(self, error: SendFailed) -> None:
        """End the call."""
        if not self.done.done():
            self.done.set_exception(error)

    def finish(self) -> None:
        """End the call with the status that the server gave."""
        code = self.status.get("grpc-status")
        if code == "0":
            if not self.done.done():
                self.done.set_result(None)
            return
        message = urllib.parse.unquote(self.status.get("grpc-message", ""))
        if code is None:
            self.fail(SendFailed("bad_response", f"HTTP {self.status.get(':status', '?')} without a gRPC status."))
        else:
            self.fail(
                SendFailed("timeout" if code == DEADLINE_EXCEEDED else "server_error", message or f"status {code}")
            )


class Connection(asyncio.BufferedProtocol):
    """One connection, many calls."""

    def __init__(self) -> None:
        import hpack

        self.is_open = False  # for further calls; those in flight may go on after a GOAWAY
        self._is_lost = False
        self._buffer = bytearray(READ_BYTES)  # without it, Python makes a quarter of a megabyte for each read
        self._decoder = hpack.Decoder()
        self._calls: dict[int, Call] = {}
        self._next_id = 1
        self._received = b""
        self._headers: tuple[int, int, bytes] = (0, 0, b"")  # stream, flags, block so far
        self._unread = 0
        self._window = DEFAULT_WINDOW
        self._call_window = DEFAULT_WINDOW
        self._frame_bytes = DEFAULT_FRAME_BYTES
        self._window_grew = asyncio.Event()
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Say the preface, and that this side never makes the server wait."""
        self._transport = transport
        self.is_open = True
        settings = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + LARGEST_WINDOW.to_bytes(4, "big")
        transport.write(PREFACE + frame(SETTINGS, 0, 0, settings) + grow(0, LARGEST_WINDOW - DEFAULT_WINDOW))

    def _write(self, data: bytes) -> None:
        if not self._is_lost:  # uvloop refuses to write to what is closed
            self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail every call in flight."""
        self.fail(SendFailed("stream_broken", f"The connection broke: {exc or 'the server closed it'}."))

    def fail(self, error: SendFailed) -> None:
        """Close, and end every call in flight with the same error."""
        self.is_open, self._is_lost = False, True
        self._transport.close()
        self._window_grew.set()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.fail(error)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's name
        """Say where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what was read."""
        self.data_received(bytes(memoryview(self._buffer)[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take every whole frame; keep the rest."""
        now = time.perf_counter()
        if self._received:
            data = self._received + data
        position, size = 0, len(data)
        while size - position >= FRAME_HEAD_BYTES:
            length = int.from_bytes(data[position : position + 3], "big")
            if length > DEFAULT_FRAME_BYTES:
                is_http1 = data.startswith(b"HTTP/")
                said = "The server speaks HTTP/1.1, not gRPC." if is_http1 else "The server sent no HTTP/2 frame."
                self.fail(SendFailed("bad_response", said))
                return
            start = position + FRAME_HEAD_BYTES
            if size < start + length:
                break
            stream = int.from_bytes(data[position + 5 : start], "big") & LARGEST_WINDOW
            self._take(data[position + 3], data[position + 4], stream, data[start : start + length], now)
            position = start + length
        self._received = data[position:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes, now: float) -> None:  # noqa: PLR0917
        if kind == DATA:
            self._take_data(flags, stream, payload, now)
        elif kind in (HEADERS, CONTINUATION):
            self._take_headers(kind, flags, stream, payload)
        elif kind == SETTINGS and not flags & ACK:
            self._take_settings(payload)
        elif kind == PING and not flags & ACK:
            self._write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            self._take_window(stream, int.from_bytes(payload, "big") & LARGEST_WINDOW)
        elif kind == RST_STREAM and stream in self._calls:
            code = int.from_bytes(payload, "big")
            self._calls.pop(stream).fail(SendFailed("stream_broken", f"The server reset the stream with code {code}."))
        elif kind == GOAWAY:
            self.is_open = False

    def _take_data(self, flags: int, stream: int, payload: bytes, now: float) -> None:
        self._unread += len(payload)
        if self._unread > LARGEST_WINDOW // 2:
            self._write(grow(0, self._unread))
            self._unread = 0
        call = self._calls.get(stream)
        if call is None:
            return
        call.take(unpadded(flags, payload), now)
        if flags & END_STREAM:
            self._calls.pop(stream).finish()

    def _take_headers(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            block = unpadded(flags, payload)
            self._headers = (stream, flags, block[5:] if flags & PRIORITY else block)
        else:
            stream, first_flags, block = self._headers
            self._headers = (stream, first_flags, block + payload)
        if not flags & END_HEADERS:
            return
        stream, first_flags, block = self._headers
        headers = self._decoder.decode(block)
        if (call := self._calls.get(stream)) is not None:
            call.status.update((str(name), str(value)) for name, value in headers)
            if first_flags & END_STREAM:
                self._calls.pop(stream).finish()

    def _take_settings(self, payload: bytes) -> None:
        for start in range(0, len(payload), 6):
            name, value = (
                int.from_bytes(payload[start : start + 2], "big"),
                int.from_bytes(payload[start + 2 : start + 6], "big"),
            )
            if name == INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window += value - self._call_window
                self._call_window = value
            elif name == MAX_FRAME_SIZE:
                self._frame_bytes = value
        self._window_grew.set()
        self._write(frame(SETTINGS, ACK, 0, b""))

    def _take_window(self, stream: int, increment: int) -> None:
        if stream == 0:
            self._window += increment
        elif stream in self._calls:
            self._calls[stream].window += increment
        self._window_grew.set()

    async def call(self, headers: bytes, message: bytes, receive: Receive) -> None:
        """Send one message, hand on what comes back, and return when the server ended the call well."""
        if self._is_lost:
            raise SendFailed("stream_broken", "The connection broke before the request was sent.")
        stream, call = self._next_id, Call(receive, self._call_window)
        self._next_id += 2
        self._calls[stream] = call
        try:
            self._write(frame(HEADERS, END_HEADERS, stream, headers))
            await self._send(stream, call, b"\0" + len(message).to_bytes(4, "big") + message)
            await call.done
        finally:
            if self._calls.pop(stream, None) is not None:
                self._write(frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))

    async def _send(self, stream: int, call: Call, data: bytes) -> None:
        position = 0
        while position < len(data) and not call.done.done():
            size = min(len(data) - position, self._frame_bytes, self._window, call.window)
            if size <= 0:
                self._window_grew.clear()
                await self._window_grew.wait()
                continue
            self._window -= size
            call.window -= size
            flags = END_STREAM if position + size == len(data) else 0
            self._write(frame(DATA, flags, stream, data[position : position + size]))
            position += size

    def close(self) -> None:
        """Close the connection."""
        self.is_open, self._is_lost = False, True
        if self._transport is not None:
            self._transport.close()


class Channel:
    """Calls to one server; connects when needed, and again when a connection was lost."""

    def __init__(self, url: str) -> None:
        self._url = urllib.parse.urlsplit(url)
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._heads: dict[str, bytes] = {}

    async def call(self, path: str, message: bytes, receive: Receive) -> None:
        """Send one message and hand on those that come back; raise SendFailed when the call does not end well."""
        connection = await self._connected()
        if path not in self._heads:
            self._heads[path] = self._head(path)
        await connection.call(self._heads[path], message, receive)

    async def unary(self, path: str, message: bytes, *, timeout_s: float = CONNECT_TIMEOUT_S) -> bytes:
        """Send one message and return the one that comes back."""
        answers: list[bytes] = []
        try:
            await asyncio.wait_for(self.call(path, message, lambda answer, _: answers.append(answer)), timeout_s)
        except asyncio.TimeoutError as error:
            raise SendFailed("timeout", f"No answer within {timeout_s:g} s.") from error
        if len(answers) != 1:
            raise SendFailed("bad_response", f"{len(answers)} messages came back instead of one.")
        return answers[0]

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is None or not self._connection.is_open:
                self._connection = await self._open()
            return self._connection

    async def _open(self) -> Connection:
        is_tls = self._url.scheme == "grpcs"
        context = ssl.create_default_context() if is_tls else None
        if context is not None:
            context.set_alpn_protocols(["h2"])
        loop = asyncio.get_running_loop()
        opening = loop.create_connection(Connection, self._url.hostname or "", self._url.port or 8001, ssl=context)
        try:
            return (await asyncio.wait_for(opening, CONNECT_TIMEOUT_S))[1]
        except asyncio.TimeoutError as error:
            raise SendFailed("connection_refused", f"No connection within {CONNECT_TIMEOUT_S:.0f} s.") from error
        except OSError as error:
            raise SendFailed("connection_refused", f"{error}.") from error

    def _head(self, path: str) -> bytes:
        headers = {
            ":method": "POST",
            ":scheme": "https" if self._url.scheme == "grpcs" else "http",
            ":path": path,
            ":authority": self._url.netloc,
            "te": "trailers",
            "content-type": "application/grpc",
            "user-agent": "trtk",
        }
        return b"".join(b"\0" + literal(name) + literal(value) for name, value in headers.items())


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def grow(stream: int, increment: int) -> bytes:
    """Return a frame that lets the server send more."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def unpadded(flags: int, payload: bytes) -> bytes:
    """Return a payload without its padding."""
    return payload[1 : len(payload) - payload[0]] if flags & PADDED else payload


def literal(text: str) -> bytes:
    """Return a header string as it is, with its length in front: HPACK's plainest form."""
    raw = text.encode("latin-1")
    if len(raw) < 127:
        return bytes((len(raw),)) + raw
    rest, length = len(raw) - 127, bytes((127,))
    while rest >= 128:
        length += bytes((rest % 128 + 128,))
        rest //= 128
    return length + bytes((rest,)) + raw
