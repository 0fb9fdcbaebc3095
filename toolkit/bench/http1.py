"""A small HTTP/1.1 client: bytes are parsed where they arrive, and an event costs no task switch.

It is kept because general clients cost several times more CPU per event. It speaks what inference servers speak:
keep-alive, Content-Length, chunked bodies, TLS. No redirects, no compression.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from toolkit.bench.answer import SendFailed, not_connected

CONNECT_TIMEOUT_S = 10.0
HEAD_LIMIT_BYTES = 1 << 16
READ_BYTES = 1 << 16
BEGIN = b"HTTP/1."
#: A server may close an idle connection at any time, and says so within a round trip; what breaks later is news.
STALE_WITHIN_S = 0.25
NO_BODY = frozenset({204, 304})
OK = 200

#: Takes a piece of a body, or the data of an event, and when it arrived on the monotonic clock.
Receive = Callable[[bytes, float], None]


class Exchange:
    """One request's response, as far as it is there."""

    def __init__(self, receive: Receive, *, on_ok: Receive | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.receive = receive
        self.on_ok = on_ok  # takes the place of `receive` for a 200
        self.status = 0
        self.headers: dict[str, str] = {}
        self.head: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self.ended_at = 0.0

    def fail(self, error: BaseException) -> None:
        """End it with an error, for whoever waits."""
        for future in (self.head, self.done):
            if not future.done():
                future.set_exception(error)
                future.exception()  # looked at here: not everybody waits for both

    def end(self, now: float) -> None:
        """Say that the response is whole."""
        self.ended_at = now
        if not self.done.done():
            self.done.set_result(None)


class Connection(asyncio.BufferedProtocol):
    """One TCP connection: one exchange at a time."""

    def __init__(self, buffer: bytearray | None = None) -> None:
        # Read into at once and parsed at once, so that all connections of a client share it. Without it, Python makes
        # and shrinks a quarter of a megabyte for each read.
        self._buffer = bytearray(READ_BYTES) if buffer is None else buffer
        self.is_reused = False
        self.is_open = False
        self.is_reusable = False
        self._has_spoken_first = False
        self._transport: Any = None
        self._exchange: Exchange | None = None
        self._rest = b""
        self._parse = self._take_head
        self._left = 0  # bytes of the body or the chunk

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is in flight: well, if the end of the connection is the end of the body."""
        self.is_open = False
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if self._parse == self._take_all:
            exchange.end(time.perf_counter())
        else:
            said = f"The connection broke: {exc or 'the server closed it'}."
            exchange.fail(SendFailed("stream_broken", said))

    def start(self, request: bytes, exchange: Exchange) -> None:
        """Send a request whose response goes to EXCHANGE."""
        if not self.is_open:  # it ended while it was being handed over: no event will say so any more
            exchange.fail(
                SendFailed("bad_response", "The response is not HTTP: it came before the request.")
                if self._has_spoken_first
                else SendFailed("stream_broken", "The connection broke: the server closed it.")
            )
            return
        self._exchange, self._parse, self.is_reusable = exchange, self._take_head, False
        self._transport.write(request)

    def close(self) -> None:
        """Close at once; what is in flight is given up."""
        self._exchange = None
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's name
        """Say where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what was read."""
        self.data_received(bytes(memoryview(self._buffer)[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Parse as far as the bytes go."""
        now = time.perf_counter()
        data = self._rest + data if self._rest else data
        exchange = self._exchange
        if exchange is None:
            self._has_spoken_first = True
            self.close()  # nothing was asked: what comes here is no answer
            return
        try:
            while self._exchange is exchange:
                before = len(data)
                parse = self._parse
                data = parse(data, exchange, now)
                if len(data) == before and self._parse == parse:
                    break
        except ValueError as error:
            exchange.fail(SendFailed("bad_response", f"The response is not HTTP: {error}."))
            self.close()
        except SendFailed as error:
            exchange.fail(error)
            self.close()
        self._rest = data

    def _end(self, exchange: Exchange, now: float) -> None:
        self._exchange = None
        self.is_reusable = self.is_open and exchange.headers.get("connection", "").lower() != "close"
        exchange.end(now)

    def _take_head(self, data: bytes, exchange: Exchange, now: float) -> bytes:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if not data.startswith(BEGIN[: len(data)]):  # a server of another protocol may leave it at that, and wait
                raise ValueError(f"it begins with {data[:40]!r}")
            if len(data) > HEAD_LIMIT_BYTES:
                raise ValueError(f"its head is longer than {HEAD_LIMIT_BYTES} bytes")
            return data
        first, *lines = data[:end].decode("latin-1").split("\r\n")
        exchange.status = int(first.split(" ", 2)[1]) if first.startswith("HTTP/1.") else _no_status(first)
        if exchange.status < OK:
            return data[end + 4 :]  # 100 Continue and the like: the response is yet to come
        if exchange.status == OK and exchange.on_ok:
            exchange.receive = exchange.on_ok
        parts = (line.partition(":") for line in lines)
        exchange.headers = {name.strip().lower(): value.strip() for name, _, value in parts}
        self._choose_framing(exchange)
        if not exchange.head.done():
            exchange.head.set_result(None)
        if self._parse == self._take_counted and not self._left:
            self._end(exchange, now)
        return data[end + 4 :]

    def _choose_framing(self, exchange: Exchange) -> None:
        self._left = int(exchange.headers.get("content-length", 0))
        if "chunked" in exchange.headers.get("transfer-encoding", ""):
            self._parse = self._take_size
        elif "content-length" in exchange.headers or exchange.status in NO_BODY:
            self._parse = self._take_counted
        else:
            self._parse = self._take_all

    def _take_all(self, data: bytes, exchange: Exchange, now: float) -> bytes:
        if data:
            exchange.receive(data, now)
        return b""

    def _take_counted(self, data: bytes, exchange: Exchange, now: float) -> bytes:
        piece = data[: self._left]
        self._left -= len(piece)
        if piece:
            exchange.receive(piece, now)
        if not self._left:
            self._end(exchange, now)
        return data[len(piece) :]

    def _take_size(self, data: bytes, exchange: Exchange, now: float) -> bytes:  # noqa: ARG002 - one of the parsers
        end = data.find(b"\r\n")
        if end < 0:
            if len(data) > HEAD_LIMIT_BYTES:
                raise ValueError("a chunk has no size")
            return data
        self._left = int(data[:end].partition(b";")[0], 16)
        self._parse = self._take_chunk if self._left else self._take_trailers
        return data[end + 2 :]

    def _take_chunk(self, data: bytes, exchange: Exchange, now: float) -> bytes:
        if self._left:
            piece = data[: self._left]
            self._left -= len(piece)
            if piece:
                exchange.receive(piece, now)
            data = data[len(piece) :]
        if self._left or len(data) < 2:
            return data
        self._parse = self._take_size
        return data[2:]

    def _take_trailers(self, data: bytes, exchange: Exchange, now: float) -> bytes:
        end = data.find(b"\r\n")
        if end < 0:
            return data
        if end == 0:
            self._end(exchange, now)
        return data[end + 2 :]


@dataclass(frozen=True)
class Result:
    """A response that is whole."""

    status: int
    body: bytes  # what was not handed on as events
    ended_at: float  # on the monotonic clock


@dataclass(frozen=True)
class Response:
    """Status and headers, with a body that can be read as it comes."""

    status: int
    headers: Mapping[str, str]
    arriving: asyncio.Queue[bytes | BaseException | None]

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""
        while (piece := await self.arriving.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    async def body(self) -> bytes:
        """Return the whole body."""
        return b"".join([piece async for piece in self.pieces()])


class Client:
    """Connections to one server; as many as there are requests in flight."""

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None) -> None:
        self._url: SplitResult = urlsplit(url)
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._prefix = self._url.path.rstrip("/")
        self._idle: list[Connection] = []
        self._buffer = bytearray(READ_BYTES)
        self._tls = ssl.create_default_context() if self._url.scheme == "https" else None

    async def call(
        self, method: str, path: str, body: bytes = b"", *, receive: Receive | None = None, request_id: str = ""
    ) -> Result:
        """Send a request; hand the data of each event of a 200 to RECEIVE, and return what else there is."""
        pieces: list[bytes] = []
        events = None if receive is None else Events(receive)

        def made() -> Exchange:
            return Exchange(lambda piece, _: pieces.append(piece), on_ok=None if events is None else events.take)

        connection, exchange = await self._start(method, path, body, made, request_id=request_id)
        try:
            await exchange.done
        finally:
            self._give_back(connection)
        if events is not None:
            events.finish(exchange.ended_at)
        return Result(exchange.status, b"".join(pieces), exchange.ended_at)

    @asynccontextmanager
    async def request(
        self, method: str, path: str, body: bytes = b"", *, request_id: str = ""
    ) -> AsyncIterator[Response]:
        """Send a request and yield its response as soon as its head is there; network errors come out as SendFailed."""
        arriving: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()

        def made() -> Exchange:
            return Exchange(lambda piece, _: arriving.put_nowait(piece))

        connection, exchange = await self._start(method, path, body, made, request_id=request_id)
        exchange.done.add_done_callback(lambda done: arriving.put_nowait(done.exception()))
        try:
            yield Response(exchange.status, exchange.headers, arriving)
        finally:
            self._give_back(connection)

    async def json(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        """Return (status, parsed body)."""
        result = await self.call(method, path, b"" if document is None else json.dumps(document).encode())
        try:
            return result.status, json.loads(result.body) if result.body else None
        except ValueError as error:
            raise SendFailed("bad_response", f"The response is not JSON: {result.body[:80]!r}.") from error

    async def close(self) -> None:
        """Close every connection."""
        while self._idle:
            self._idle.pop().close()

    async def _start(
        self, method: str, path: str, body: bytes, made: Callable[[], Exchange], *, request_id: str
    ) -> tuple[Connection, Exchange]:
        own = f"X-Request-Id: {request_id}\r\n" if request_id else ""
        head = (
            f"{method} {self._prefix}{path} HTTP/1.1\r\nHost: {self._url.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{own}{self._headers}\r\n"
        )
        while True:
            connection, exchange, asked_at = await self._connection(), made(), time.perf_counter()
            connection.start(head.encode() + body, exchange)
            try:
                await exchange.head
            except SendFailed as error:
                connection.close()
                is_stale = connection.is_reused and time.perf_counter() - asked_at < STALE_WITHIN_S
                if not (is_stale and error.kind == "stream_broken"):
                    raise
            except BaseException:
                connection.close()
                raise
            else:
                return connection, exchange

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                connection.is_reused = True
                return connection
        port = self._url.port or (443 if self._tls else 8000)
        opening = asyncio.get_running_loop().create_connection(
            lambda: Connection(self._buffer), self._url.hostname or "", port, ssl=self._tls
        )
        try:
            _, made = await asyncio.wait_for(opening, CONNECT_TIMEOUT_S)
        except asyncio.TimeoutError as error:
            raise SendFailed("connection_refused", f"No connection within {CONNECT_TIMEOUT_S:.0f} s.") from error
        except OSError as error:
            raise not_connected(error) from error
        return made

    def _give_back(self, connection: Connection) -> None:
        if connection.is_open and connection.is_reusable:
            self._idle.append(connection)
        else:
            connection.close()


def _no_status(line: str) -> int:
    raise ValueError(f"it begins with {line[:40]!r}")


class Events:
    """Splits a body into server-sent events; an event may be split over pieces, and a piece may hold several."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._rest = b""

    def take(self, piece: bytes, now: float) -> None:
        """Hand on the data of every event that is whole."""
        *lines, self._rest = (self._rest + piece if self._rest else piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._receive(line[5:].strip(), now)

    def finish(self, now: float) -> None:
        """Hand on a last event without an end of line."""
        if self._rest.startswith(b"data:"):
            self._receive(self._rest[5:].strip(), now)


async def server_sent_events(response: Response) -> AsyncIterator[bytes]:
    """Yield the data of each event."""
    found: list[bytes] = []
    events = Events(lambda data, _: found.append(data))
    async for piece in response.pieces():
        events.take(piece, 0.0)
        while found:
            yield found.pop(0)
    events.finish(0.0)
    for data in found:
        yield data
