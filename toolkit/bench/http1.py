"""A small HTTP/1.1 client over asyncio streams, kept because general clients cost several times more CPU per event.

It speaks what inference servers speak: keep-alive, Content-Length, chunked bodies, TLS. No redirects, no compression.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from toolkit.bench.answer import SendFailed

CONNECT_TIMEOUT_S = 10.0
LIMIT_BYTES = 1 << 24


@dataclass
class Connection:
    """One TCP connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_reused: bool = False


@dataclass(frozen=True)
class Response:
    """Status and headers, with the connection that the body still has to be read from."""

    status: int
    headers: dict[str, str]
    connection: Connection

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""
        reader = self.connection.reader
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while size := int(await reader.readuntil(b"\r\n"), 16):
                yield (await reader.readexactly(size + 2))[:-2]
            await reader.readuntil(b"\r\n")
        elif "content-length" in self.headers:
            yield await reader.readexactly(int(self.headers["content-length"]))
        else:
            while piece := await reader.read(1 << 16):
                yield piece

    async def body(self) -> bytes:
        """Return the whole body."""
        return b"".join([piece async for piece in self.pieces()])

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow on the same connection."""
        is_framed = "content-length" in self.headers or "chunked" in self.headers.get("transfer-encoding", "")
        return is_framed and self.headers.get("connection", "").lower() != "close"


class Client:
    """Connections to one server; as many as there are requests in flight."""

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None) -> None:
        self._url: SplitResult = urlsplit(url)
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._prefix = self._url.path.rstrip("/")
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def request(
        self, method: str, path: str, body: bytes = b"", *, request_id: str = ""
    ) -> AsyncIterator[Response]:
        """Send a request and yield its response; network errors come out as SendFailed."""
        connection: Connection | None = None
        is_done = False
        try:
            response = await self._start(method, path, body, request_id=request_id)
            connection = response.connection
            yield response
            is_done = response.is_reusable
        except asyncio.IncompleteReadError as error:
            raise SendFailed("stream_broken", "The connection broke: the server closed it.") from error
        except (ConnectionError, asyncio.LimitOverrunError) as error:
            raise SendFailed("stream_broken", f"The connection broke: {error}.") from error
        except ValueError as error:
            raise SendFailed("bad_response", f"The response is not HTTP: {error}.") from error
        finally:
            if connection is not None:
                self._give_back(connection, is_reusable=is_done)

    async def json(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        """Return (status, parsed body)."""
        body = b"" if document is None else json.dumps(document).encode()
        async with self.request(method, path, body) as response:
            raw = await response.body()
            return response.status, json.loads(raw) if raw else None

    async def close(self) -> None:
        """Close every connection."""
        while self._idle:
            self._idle.pop().writer.close()

    async def _start(self, method: str, path: str, body: bytes, *, request_id: str) -> Response:
        own = f"X-Request-Id: {request_id}\r\n" if request_id else ""
        head = (
            f"{method} {self._prefix}{path} HTTP/1.1\r\nHost: {self._url.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{own}{self._headers}\r\n"
        )
        while True:
            connection = self._idle.pop() if self._idle else await self._open()
            try:
                connection.writer.write(head.encode() + body)
                return await _head(connection)
            except (ConnectionError, asyncio.IncompleteReadError):
                connection.writer.close()
                # A server may close an idle connection at any time; only a fresh one that breaks is news.
                if not connection.is_reused:
                    raise
            except BaseException:
                connection.writer.close()
                raise

    async def _open(self) -> Connection:
        is_tls = self._url.scheme == "https"
        port = self._url.port or (443 if is_tls else 8000)
        context = ssl.create_default_context() if is_tls else None
        opening = asyncio.open_connection(self._url.hostname, port, ssl=context, limit=LIMIT_BYTES)
        try:
            reader, writer = await asyncio.wait_for(opening, CONNECT_TIMEOUT_S)
        except asyncio.TimeoutError as error:
            raise SendFailed("connection_refused", f"No connection within {CONNECT_TIMEOUT_S:.0f} s.") from error
        except OSError as error:
            raise SendFailed("connection_refused", f"{error}.") from error
        return Connection(reader, writer)

    def _give_back(self, connection: Connection, *, is_reusable: bool) -> None:
        if is_reusable:
            connection.is_reused = True
            self._idle.append(connection)
        else:
            connection.writer.close()


async def _head(connection: Connection) -> Response:
    raw = await connection.reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    return Response(int(first.split(" ", 2)[1]), headers, connection)


async def server_sent_events(response: Response) -> AsyncIterator[bytes]:
    """Yield the data of each event; an event may be split over pieces, and a piece may hold several."""
    rest = b""
    async for piece in response.pieces():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
    if rest.startswith(b"data:"):
        yield rest[5:].strip()
