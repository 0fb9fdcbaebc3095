"""Run as `python -m toolkit.gateway.front HOST PORT TRITON_HOST TRITON_PORT`: what HTTP clients reach, before Triton.

Bytes pass as they are, in both directions and as they come. Triton answers a request that it cannot read with 500,
which clients take for a server that failed: they retry, and somebody is called. Here that is 400; and so is what is no
request at all, of which Triton says nothing, and JSON that nests so deep that Triton would die of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import resource
import signal
import sys
from typing import Any, cast

from toolkit.gateway import misread
from toolkit.gateway.incoming import Incoming

#: An answer of 500 that is not all there after so long is let through as far as it came.
HOLD_S = 0.25
#: For what is still to be sent, once Triton is gone and this process is told to stop.
DRAIN_S = 1.0
#: For a client to read why it was refused while it still sends: a connection that is closed at once is reset.
LINGER_S = 5.0
BACKLOG = 1024
LAST_ANSWER = (
    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
)


class Half(asyncio.Protocol):
    """One of a connection's two halves: what it gets goes to the other, no faster than that takes it."""

    transport: asyncio.Transport
    other: Half | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        """Read no more from the other half: this one's peer is slower."""
        if self.other:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if self.other and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other half too: at once where this one broke."""
        if self.other is None or self.other.transport.is_closing():
            return
        if exc is None:
            self.other.transport.close()
        else:
            self.other.transport.abort()


class Inside(Half):
    """The half towards Triton."""

    def __init__(self, door: Door) -> None:
        self.other = door
        self._held = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Pass an answer on; hold one of 500 or 501 until it is known whose fault it is."""
        assert isinstance(self.other, Door)
        self.other.heard()
        if not self._held and not misread.begins(data):
            self.other.transport.write(data)
            return
        self._held += data
        settled = misread.settled(bytes(self._held))
        if settled is None:
            self._timer = self._timer or asyncio.get_running_loop().call_later(HOLD_S, self._let_go)
            return
        self._held[:] = settled
        self._let_go()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of what is held, and end the client's half too."""
        self._let_go()
        super().connection_lost(exc)

    def _let_go(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._held and self.other and not self.other.transport.is_closing():
            self.other.transport.write(bytes(self._held))
        self._held.clear()


class Door(Half):
    """The half towards a client; Triton is connected to once the client says something."""

    def __init__(self, triton: tuple[str, int], doors: set[Door]) -> None:
        self._triton, self._doors = triton, doors
        self._incoming = Incoming()
        self._answered = 0  # of its requests, when Triton last said something
        self._early = bytearray()
        self._is_eof = self._is_refused = False
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        super().connection_made(transport)
        self._doors.add(self)

    def data_received(self, data: bytes) -> None:
        """Pass a request on, or connect first."""
        if self._is_refused:
            return
        if refusal := self._incoming.refusal(data):
            self._refuse(refusal)
            return
        if self.other:
            self.other.transport.write(data)
            return
        self._early += data
        if self._connecting is None:
            self.transport.pause_reading()
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def heard(self) -> None:
        """Note that Triton says something: of the last request that has come whole, or of the one that comes."""
        self._answered = self._incoming.ended

    def eof_received(self) -> bool:
        """Pass on that no more comes, once there is somebody to tell; the answer may still."""
        if self._is_refused:
            return False
        self._is_eof = True
        if self.other and not self.other.transport.is_closing():
            self.other.transport.write_eof()
        return self._connecting is not None

    def connection_lost(self, exc: Exception | None) -> None:
        """End Triton's half at once: nobody is there for the rest of an answer, and its request is cancelled."""
        self._doors.discard(self)
        super().connection_lost(exc or ConnectionResetError())

    def _refuse(self, sentence: str) -> None:
        """Let Triton forget the request; say why, unless an earlier one's answer would be taken for that."""
        if self.other:
            self.other.other = None
            self.other.transport.abort()
            self.other = None
        if self._incoming.ended > self._answered:
            self._is_refused = True
            self.transport.close()
        else:
            self._end_with("400 Bad Request", sentence)

    def _end_with(self, status: str, sentence: str) -> None:
        self._is_refused = True
        body = json.dumps({"error": sentence})
        self.transport.write(LAST_ANSWER.format(status=status, length=len(body), body=body).encode())
        if self._is_eof:
            self.transport.close()
            return
        self.transport.write_eof()
        self.transport.resume_reading()
        asyncio.get_running_loop().call_later(LINGER_S, self.transport.close)

    async def _connect(self) -> None:
        try:
            _, inside = await asyncio.get_running_loop().create_connection(lambda: Inside(self), *self._triton)
        except OSError:
            self._end_with(
                "503 Service Unavailable", "Triton does not answer behind this port; `trtk status` says why."
            )
            return
        if self._is_refused or self.transport.is_closing():
            inside.transport.abort()
            return
        self.other = inside
        inside.transport.write(bytes(self._early))
        self._early.clear()
        if self._is_eof:
            inside.transport.write_eof()
        else:
            self.transport.resume_reading()


async def run(host: str, port: int, triton: tuple[str, int]) -> None:
    """Listen until SIGTERM."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    doors: set[Door] = set()
    server = await loop.create_server(lambda: Door(triton, doors), host, port, backlog=BACKLOG)
    await stopped.wait()
    server.close()
    for door in tuple(doors):
        door.transport.close()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_until_none(doors), DRAIN_S)


async def _until_none(doors: set[Door]) -> None:
    while doors:
        await asyncio.sleep(0.02)


def main() -> None:
    """Listen as the command line says."""
    host, port, triton_host, triton_port = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection takes two files
    runner: Any = asyncio
    if importlib.util.find_spec("uvloop"):
        import uvloop as runner  # half of what a byte costs here
    try:
        runner.run(run(host, int(port), (triton_host, int(triton_port))))
    except OSError as error:
        print(f"Error: {host}:{port} cannot be listened on: {error}.", file=sys.stderr)  # noqa: T201 - its log
        sys.exit(1)


if __name__ == "__main__":
    main()
