"""HTTP/1.1 however the bytes are cut: the same response, and errors that say what was wrong."""

import asyncio
import contextlib
import os
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.bench import http1, loops
from toolkit.bench.answer import SendFailed

CHUNKED = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"7;x=y\r\ndata: a\r\n1\r\n\n\r\n11\r\n\n: hi\ndata: b\n\nda\r\n6\r\nta: c\n\r\n0\r\nTrailer: x\r\n\r\n"
)
COUNTED = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\ndata: a\ndata: b\ndata: c"[:-3] + b"c  "
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\n\r\ndata: a\n\ndata: b\n\ndata: c"


@contextlib.asynccontextmanager
async def server(*scripts):
    """Serve each request of a connection with the next list of pieces; what follows the last closes."""
    left = list(scripts)

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while left:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
                await reader.readexactly(length)
                for piece in left.pop(0):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"
    finally:
        running.close()
        await running.wait_closed()


def asked(*scripts, is_stream=True, times=1):
    async def main():
        async with server(*scripts) as url:
            client, found = http1.Client(url), []
            for _ in range(times):
                events = []
                take = (lambda data, _, events=events: events.append(data)) if is_stream else None
                result = await client.call("POST", "/x", b"{}", receive=take)
                found.append((result.status, events if is_stream else result.body))
            await client.close()
            return found

    return asyncio.run(main())


@settings(max_examples=40)
@given(st.sampled_from([CHUNKED, UNTIL_CLOSE]), st.data())
def test_events_are_the_same_however_the_bytes_are_cut(raw, data):
    cuts = sorted(data.draw(st.lists(st.integers(1, len(raw) - 1), max_size=12, unique=True)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert asked(pieces) == [(200, [b"a", b"b", b"c"])]


def test_a_connection_is_used_again_and_a_stale_one_is_replaced():
    first = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]"
    assert asked([first], [first], [closing], [first], is_stream=False, times=4) == [
        (200, b"{}"), (200, b"{}"), (200, b"[]"), (200, b"{}")
    ]  # fmt: skip


def test_the_body_of_a_refusal_is_kept_whole():
    raw = b"HTTP/1.1 429 Too Many\r\nContent-Length: 9\r\n\r\ndata: {}\n"
    assert asked([raw[:50], raw[50:]], is_stream=False) == [(429, b"data: {}\n")]
    assert asked([raw]) == [(429, [])]


@pytest.mark.parametrize(
    ("raw", "kind", "message"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "bad_response", "The response is not HTTP: it begins with 'SSH-2.0-OpenSSH'."),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "bad_response", "The response is not HTTP: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ndata", "stream_broken", "The connection broke: "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nda", "stream_broken", "The connection broke: "),
        (b"", "stream_broken", "The connection broke: the server closed it."),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, "bad_response", "its head is longer than 65536 bytes"),
    ],
)
def test_what_is_no_whole_response_is_said(raw, kind, message):
    with pytest.raises(SendFailed) as caught:
        asked([raw])
    assert caught.value.kind == kind
    assert message in str(caught.value)


def test_who_leaves_in_an_event_closes_the_connection():
    async def main():
        async with server([CHUNKED]) as url:
            client = http1.Client(url)

            def leave(*_):
                raise SendFailed("left", "Gone.")

            with pytest.raises(SendFailed, match=r"Gone\."):
                await client.call("POST", "/x", b"{}", receive=leave)
            return client._idle

    assert asyncio.run(main()) == []


SETTINGS = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"


async def refused_by(speak, *, pause_s=0.0):
    """Return the error of a request to a server that begins by itself, sent after a pause."""
    opened = []

    def serve(_, writer):
        opened.append(writer)
        speak(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as running:
        port = running.sockets[0].getsockname()[1]
        _, connection = await asyncio.get_running_loop().create_connection(http1.Connection, "127.0.0.1", port)
        await asyncio.sleep(pause_s)
        exchange = http1.Exchange(lambda *_: None)
        connection.start(b"GET / HTTP/1.1\r\n\r\n", exchange)
        with pytest.raises(SendFailed) as caught:
            await asyncio.wait_for(exchange.head, 20)
        connection.close()
        for writer in opened:
            writer.close()
            await writer.wait_closed()
    return caught.value


@pytest.mark.parametrize("pause_s", [0.0, 0.3], ids=["after the request", "before the request"])
def test_a_server_of_another_protocol_that_waits_is_told_at_once(pause_s):
    error = asyncio.run(refused_by(lambda writer: writer.write(SETTINGS), pause_s=pause_s))
    assert (error.kind, str(error).startswith("The response is not HTTP: it ")) == ("bad_response", True)


def test_a_server_that_closes_before_it_is_asked_is_told_at_once():
    error = asyncio.run(refused_by(lambda writer: writer.close(), pause_s=0.3))
    assert (error.kind, str(error)) == ("stream_broken", "The connection broke: the server closed it.")


def test_nobody_there_is_refused_in_a_sentence():
    async def main():
        await http1.Client("http://127.0.0.1:9").call("GET", "/")

    with pytest.raises(SendFailed) as caught:
        asyncio.run(main())
    assert caught.value.kind == "connection_refused"


def test_a_connection_that_breaks_while_its_request_is_worked_on_is_no_stale_one():
    heads = []

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await asyncio.sleep(2 * http1.STALE_WITHIN_S)
        writer.close()

    async def main():
        running = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = http1.Client(f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}")
        await client.call("POST", "/x")
        with pytest.raises(SendFailed) as caught:
            await client.call("POST", "/x")
        running.close()
        return caught.value.kind

    assert (asyncio.run(main()), len(heads)) == ("stream_broken", 2)


def test_a_client_that_may_open_no_more_connections_says_so_of_itself():
    async def main():
        async with server() as url:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            taken = os.dup(0)
            os.close(taken)
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken, limits[1]))
            try:
                with pytest.raises(SendFailed) as caught:
                    await http1.Client(url).call("POST", "/x")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            return caught.value.kind

    assert asyncio.run(main()) == "client_limit"


def test_the_loop_of_a_load_test_may_open_as_many_connections_as_the_machine_allows():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def seen():
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        assert loops.run(seen()) == limits[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
