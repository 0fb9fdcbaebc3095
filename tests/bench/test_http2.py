import asyncio

import hpack
import pytest

from toolkit.bench import http2
from toolkit.bench.answer import SendFailed


class Wire:
    """What a connection writes; what the server says is fed in by the test."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        data, found = self.written.removeprefix(http2.PREFACE), []
        while data:
            size = int.from_bytes(data[:3], "big")
            found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
            data = data[9 + size :]
        return found


def message(text: bytes) -> bytes:
    return b"\0" + len(text).to_bytes(4, "big") + text


def headers(*pairs: tuple[str, str]) -> bytes:
    return hpack.Encoder().encode(pairs)


def exchange(said: bytes, *, pieces: int = 1 << 20, request: bytes = b"ask") -> tuple[list[bytes], Wire]:
    """Make a call, feed SAID in pieces of so many bytes, and return the messages received."""

    async def call() -> tuple[list[bytes], Wire]:
        connection, wire, got = http2.Connection(), Wire(), []
        connection.connection_made(wire)
        calling = asyncio.ensure_future(connection.call(b"", request, lambda answer, _: got.append(answer)))
        await asyncio.sleep(0)
        for start in range(0, len(said), pieces):
            connection.data_received(said[start : start + pieces])
        await asyncio.wait_for(calling, 1)
        return got, wire

    return asyncio.run(call())


OK = http2.frame(http2.HEADERS, http2.END_HEADERS, 1, headers((":status", "200")))
END = http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, 1, headers(("grpc-status", "0")))


@pytest.mark.parametrize("pieces", [1, 2, 7, 10_000])
def test_messages_are_whole_however_frames_and_bytes_are_cut(pieces):
    body = message(b"first") + message(b"") + message(b"x" * 300)
    data = b"".join(http2.frame(http2.DATA, 0, 1, body[start : start + 11]) for start in range(0, len(body), 11))
    got, _ = exchange(OK + data + END, pieces=pieces)
    assert got == [b"first", b"", b"x" * 300]


def test_padding_priorities_and_continued_headers_are_understood():
    block = headers((":status", "200"), ("x-long", "y" * 50))
    start = http2.frame(http2.HEADERS, http2.PADDED | http2.PRIORITY, 1, b"\2" + b"\0" * 5 + block[:9] + b"\0\0")
    rest = http2.frame(http2.CONTINUATION, http2.END_HEADERS, 1, block[9:])
    data = http2.frame(http2.DATA, http2.PADDED, 1, b"\3" + message(b"hello") + b"\0\0\0")
    assert exchange(start + rest + data + END)[0] == [b"hello"]


def test_settings_and_pings_are_answered():
    said = http2.frame(http2.SETTINGS, 0, 0, b"") + http2.frame(http2.PING, 0, 0, b"12345678")
    _, wire = exchange(said + OK + END)
    assert (http2.SETTINGS, http2.ACK, 0, b"") in wire.frames()
    assert (http2.PING, http2.ACK, 0, b"12345678") in wire.frames()


def test_a_long_request_waits_for_the_servers_window():
    async def call() -> list[int]:
        connection, wire, sizes = http2.Connection(), Wire(), []
        connection.connection_made(wire)
        calling = asyncio.ensure_future(connection.call(b"", b"x" * 100_000, lambda *_: None))
        for grown in (b"", http2.grow(0, 50_000), http2.grow(1, 50_000)):
            connection.data_received(grown)
            await asyncio.sleep(0.01)
            sizes.append(sum(len(payload) for kind, _, _, payload in wire.frames() if kind == http2.DATA))
        connection.data_received(OK + END)
        await calling
        return sizes

    # 65,535 bytes until both the connection's and the call's window have grown.
    assert asyncio.run(call()) == [65_535, 65_535, 100_005]


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (
            http2.frame(
                http2.HEADERS,
                0x5,
                1,
                headers((":status", "200"), ("grpc-status", "14"), ("grpc-message", "queue%20full")),
            ),
            "server_error",
            "queue full",
        ),
        (http2.frame(http2.HEADERS, 0x5, 1, headers(("grpc-status", "4"))), "timeout", "status 4"),
        (http2.frame(http2.HEADERS, 0x5, 1, headers((":status", "502"))), "bad_response", "HTTP 502 without"),
        (http2.frame(http2.RST_STREAM, 0, 1, b"\0\0\0\7"), "stream_broken", "reset the stream with code 7"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "bad_response", "The server speaks HTTP/1.1, not gRPC."),
        (b"\xff" * 20, "bad_response", "The server sent no HTTP/2 frame."),
    ],
)
def test_a_call_that_ends_badly_says_how(said, kind, words):
    with pytest.raises(SendFailed, match=words) as caught:
        exchange(said)
    assert caught.value.kind == kind


def test_a_call_that_is_given_up_is_cancelled_on_the_server():
    async def call() -> Wire:
        connection, wire = http2.Connection(), Wire()
        connection.connection_made(wire)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(connection.call(b"", b"", lambda *_: None), 0.01)
        return wire

    assert asyncio.run(call()).frames()[-1] == (http2.RST_STREAM, 0, 1, b"\0\0\0\x08")


@pytest.mark.parametrize("length", [0, 126, 127, 128, 254, 255, 300, 20_000])
def test_header_strings_are_read_back_by_hpack(length):
    value = "v" * length
    assert hpack.Decoder().decode(b"\0" + http2.literal("name") + http2.literal(value)) == [("name", value)]
