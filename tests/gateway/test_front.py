"""What answers HTTP before Triton: bytes pass as they are, and a request that cannot be read is the client's fault."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from toolkit import processes
from toolkit.gateway import front, misread

UNREAD = "failed to parse the request JSON buffer: Invalid value. at 0"
OTHER = "the device is lost"


def answer(status, sentence, *, head="Content-Type: application/json\r\n", cut=0):
    body = json.dumps({"error": sentence}).encode()
    return f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body) + cut}\r\n\r\n".encode() + body


FAILED = "500 Internal Server Error"


@pytest.mark.parametrize(
    "sentence",
    [
        UNREAD,
        "Unable to parse JSON bytes array: attempt to access JSON non-string as string",
        "attempt to access JSON non-object as object",
        "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'",
        "HTTP end point doesn't support models with decoupled transaction policy",
        "Unsupported compression type",
    ],
)
def test_what_triton_could_not_read_is_a_400_with_the_same_sentence(sentence):
    expected = answer("400 Bad Request", sentence)
    assert misread.settled(answer(FAILED, sentence)) == expected
    before = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert misread.settled(before + answer(FAILED, sentence)) == before + expected


@pytest.mark.parametrize(
    "came",
    [
        answer(FAILED, OTHER),  # Triton's fault
        answer(FAILED, "the model says: a JSON schema cannot be compiled"),  # a model's words
        answer("503 Service Unavailable", UNREAD),
        answer(FAILED, UNREAD, head="Content-Encoding: gzip\r\n"),
        b"HTTP/1.1 500 Internal Server Error\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\n{}}",
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 9\r\n\r\n[1, 2, 3]",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 500 X\r\nA: " + b"a" * misread.MAX_HEAD_BYTES,
        b"HTTP/1.1 500 X\r\nContent-Length: 9999999\r\n\r\n",
    ],
)
def test_everything_else_stays_as_it_came(came):
    assert misread.settled(came) == came


def test_an_answer_that_comes_in_pieces_is_waited_for():
    whole = answer(FAILED, UNREAD)
    cuts = [misread.settled(whole[:end]) for end in range(len("HTTP/1.1 500 "), len(whole))]
    assert set(cuts) == {None}
    assert misread.begins(whole)
    assert not misread.begins(answer("200 OK", UNREAD))


class Scripted:
    """A Triton that answers each connection by a function, in a thread; it keeps what it was sent."""

    def __init__(self, act):
        self.act, self.seen, self.ended = act, [], threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection, contextlib.suppress(OSError):
            self.act(self, connection)
        self.ended.set()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # else the thread that accepts keeps it open
        self.listener.close()


def started(triton_port):
    """Start a front on a port that nobody else took in the meantime; return it once it listens, and its port."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        words = ("127.0.0.1", str(port), "127.0.0.1", str(triton_port))
        process = subprocess.Popen([sys.executable, "-m", "toolkit.gateway.front", *words])
        while process.poll() is None and time.monotonic() < deadline:
            if processes.port_holder(port) == process.pid:
                return process, port
            time.sleep(0.05)
        process.kill()
        process.wait()
    raise AssertionError("no front came up")


@pytest.fixture
def fronted():
    """Return what starts a Triton by a script, and the address of the front before it."""
    with contextlib.ExitStack() as stack:

        def start(act):
            triton = Scripted(act)
            stack.callback(triton.close)
            process, port = started(triton.port)
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
            triton.front, triton.address = process, ("127.0.0.1", port)
            return triton

        yield start


def request_of(connection):
    """Read one request; empty when the client has gone."""
    request = b""
    while b"\r\n\r\n" not in request:
        if not (piece := connection.recv(65536)):
            return b""
        request += piece
    found = re.search(rb"content-length: (\d+)", request, re.IGNORECASE)
    whole = request.index(b"\r\n\r\n") + 4 + (int(found[1]) if found else 0)
    while len(request) < whole:
        if not (piece := connection.recv(65536)):
            return b""
        request += piece
    return request


def answers_with(*pieces, pause_s=0.0):
    def act(triton, connection):
        while request := request_of(connection):
            triton.seen.append(request)
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)

    return act


def asked(address, body=b"{", *, method="POST", path="/v2/models/m/generate"):
    connection = http.client.HTTPConnection(*address, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, body=body)
        reply = connection.getresponse()
        return reply.status, reply.read()


def test_a_request_that_cannot_be_read_is_answered_with_400_and_one_that_failed_with_500(fronted):
    said = {b"{": answer(FAILED, UNREAD), b"x": answer(FAILED, OTHER), b"y": answer("200 OK", "fine")}
    triton = fronted(lambda _, connection: connection.sendall(said[request_of(connection)[-1:]]))
    assert asked(triton.address, b"{") == (400, json.dumps({"error": UNREAD}).encode())
    assert asked(triton.address, b"x") == (500, json.dumps({"error": OTHER}).encode())
    assert asked(triton.address, b"y") == (200, json.dumps({"error": "fine"}).encode())


def test_on_one_connection_each_answer_is_looked_at(fronted):
    turns = iter([answer("200 OK", "a"), answer(FAILED, UNREAD), answer("200 OK", "b"), answer(FAILED, UNREAD)])

    def act(_, connection):
        while request_of(connection):
            connection.sendall(next(turns))

    triton = fronted(act)
    connection = http.client.HTTPConnection(*triton.address, timeout=10)
    statuses = []
    for _ in range(4):
        connection.request("POST", "/v2", body=b"{")
        reply = connection.getresponse()
        reply.read()
        statuses.append(reply.status)
    connection.close()
    assert statuses == [200, 400, 200, 400]


def test_an_answer_in_pieces_is_put_together(fronted):
    whole = answer(FAILED, UNREAD)
    triton = fronted(answers_with(whole[:40], whole[40:90], whole[90:], pause_s=0.03))
    assert asked(triton.address) == (400, json.dumps({"error": UNREAD}).encode())


def test_half_an_answer_is_let_through_and_does_not_hang(fronted):
    triton = fronted(answers_with(answer(FAILED, UNREAD, cut=50)))
    began = time.monotonic()
    with socket.create_connection(triton.address, 10) as client:
        client.sendall(b"POST / HTTP/1.1\r\n\r\n")
        assert client.recv(65536) == answer(FAILED, UNREAD, cut=50)
    assert front.HOLD_S * 0.8 < time.monotonic() - began < 5


def test_bytes_pass_as_they_are_in_both_directions(fronted):
    tensors = os.urandom(6 << 20)
    head = "POST /v2/models/m/infer HTTP/1.1\r\nInference-Header-Content-Length: 0\r\n"
    sent, got = f"{head}Content-Length: {len(tensors)}\r\n\r\n".encode() + tensors, bytearray()

    def act(triton, connection):
        left = len(sent)
        while left:
            piece = connection.recv(65536)
            triton.seen.append(piece)
            left -= len(piece)
        connection.sendall(b"".join(triton.seen)[::-1])

    triton = fronted(act)
    with socket.create_connection(triton.address, 20) as client:
        sender = threading.Thread(target=client.sendall, args=(sent,))
        sender.start()
        while piece := client.recv(1 << 20):
            got += piece
            time.sleep(0.001)  # slower than Triton: nothing may be lost, and memory not be filled
        sender.join()
    assert (b"".join(triton.seen) == sent, bytes(got) == sent[::-1]) == (True, True)


def test_a_slow_reader_slows_triton_down_instead_of_filling_memory(fronted):
    sent = []

    def act(_, connection):
        connection.recv(65536)
        connection.settimeout(1.5)
        with contextlib.suppress(TimeoutError):
            while True:
                sent.append(connection.send(b"x" * 65536))

    triton = fronted(act)
    with socket.create_connection(triton.address, 20) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert triton.ended.wait(60)
    assert sum(sent) < 64 << 20  # what buffers of the kernel hold, and no more


def test_events_are_passed_on_as_they_come(fronted):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
    event = b"a\r\ndata: {}\n\n\r\n"
    triton = fronted(answers_with(head, *[event] * 5, b"0\r\n\r\n", pause_s=0.15))
    host, port = triton.address
    with urllib.request.urlopen(f"http://{host}:{port}/", data=b"{}", timeout=10) as reply:
        times = []
        while reply.readline():
            times.append(time.monotonic())
    assert times[-1] - times[0] > 0.4


def test_a_client_that_goes_is_told_to_triton_at_once(fronted):
    gone = []

    def act(_, connection):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        connection.settimeout(10)
        with contextlib.suppress(ConnectionError):
            connection.recv(1)
        gone.append(time.monotonic())

    triton = fronted(act)
    client = socket.create_connection(triton.address, 10)
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    client.recv(10)
    client.close()
    left = time.monotonic()
    assert triton.ended.wait(10)
    assert gone[0] - left < 1


def test_a_client_that_says_that_it_is_done_still_gets_its_answer(fronted):
    def act(triton, connection):
        while piece := connection.recv(65536):
            triton.seen.append(piece)
        connection.sendall(answer("200 OK", "late"))

    triton = fronted(act)
    with socket.create_connection(triton.address, 10) as client:
        client.sendall(b"POST / HTTP/1.1\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert client.makefile("rb").read() == answer("200 OK", "late")


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00", b"\r\x07\xe9", b"\n4]-", b"\x00", b"G\x00T / HTTP/1.1\r\n\r\n", b"A" * 33, bytes(4096)],
)
def test_what_is_no_request_is_told_so_and_triton_does_not_see_it(fronted, sent):
    triton = fronted(answers_with(answer("200 OK", "x")))
    with socket.create_connection(triton.address, 10) as client:
        client.sendall(sent)
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
    assert (head.split(b"\r\n")[0], json.loads(body)["error"]) == (
        b"HTTP/1.1 400 Bad Request", "What was sent is no HTTP request: Invalid method encountered."
    )  # fmt: skip
    assert triton.seen == []


@pytest.mark.parametrize("size", [10_000, 20 << 20])
def test_json_that_nests_too_deep_is_refused_and_triton_never_knows(fronted, size):
    triton = fronted(answers_with(answer("200 OK", "x")))
    status, body = asked(triton.address, b"[" * size)
    assert (status, json.loads(body)["error"]) == (400, "The request's JSON nests deeper than 512 levels.")
    assert triton.seen == []


def test_triton_forgets_the_beginning_of_what_is_refused(fronted):
    triton = fronted(answers_with(b"HTTP/1.1 100 Continue\r\n\r\n"))
    with socket.create_connection(triton.address, 10) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n" + b"[" * 100)
        time.sleep(0.3)
        assert not triton.ended.is_set()
        client.sendall(b"[" * 900)
        assert b"400 Bad Request" in client.makefile("rb").read()
    assert triton.ended.wait(10)
    assert triton.seen == []


def test_a_connection_that_was_good_is_told_too(fronted):
    triton = fronted(answers_with(answer("200 OK", "x")))
    connection = http.client.HTTPConnection(*triton.address, timeout=10)
    statuses = []
    for body in (b"{}", b"[" * 1000):
        connection.request("POST", "/v2", body=body)
        reply = connection.getresponse()
        statuses.append((reply.status, reply.getheader("Connection")))
        reply.read()
    connection.close()
    assert statuses == [(200, None), (400, "close")]
    assert triton.ended.wait(10)


def test_a_refusal_is_not_taken_for_the_answer_to_an_earlier_request(fronted):
    triton = fronted(answers_with(answer("200 OK", "late"), pause_s=1))
    deep = b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + b"[" * 1000
    with socket.create_connection(triton.address, 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n" + deep)
        assert client.recv(1000) == b""
    assert triton.seen == []


def test_a_client_that_goes_on_sending_after_a_refusal_is_left_in_the_end(fronted):
    triton = fronted(answers_with(b""))
    with socket.create_connection(triton.address, 10) as client:
        client.sendall(b"no request")
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 400 ")
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 30:
                client.sendall(b"x")
                time.sleep(0.1)
    assert time.monotonic() - began < front.LINGER_S + 5


@pytest.mark.parametrize("pieces", [(b"G", b"ET / HTTP/1.1\r\n\r\n"), (b"\r\n", b"GET / HTTP/1.1\r\n\r\n")])
def test_a_request_that_comes_in_pieces_is_one(fronted, pieces):
    triton = fronted(answers_with(answer("200 OK", "x")))
    with socket.create_connection(triton.address, 10) as client:
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.1)
        assert client.recv(65536) == answer("200 OK", "x")
    assert triton.seen == [b"".join(pieces)]


def test_without_triton_it_says_so(fronted):
    triton = fronted(answers_with(b""))
    triton.close()
    status, body = asked(triton.address)
    assert (status, json.loads(body)["error"]) == (
        503, "Triton does not answer behind this port; `trtk status` says why."
    )  # fmt: skip


def test_a_triton_that_breaks_off_breaks_the_answer_off(fronted):
    def act(_, connection):
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    triton = fronted(act)
    with pytest.raises(http.client.IncompleteRead):
        asked(triton.address)


def test_told_to_end_it_sends_what_it_has_and_ends(fronted):
    triton = fronted(answers_with(answer("200 OK", "x")))
    with socket.create_connection(triton.address, 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        client.recv(65536)
        triton.front.send_signal(signal.SIGTERM)
        assert triton.front.wait(5) == 0
        assert client.recv(10) == b""


def test_a_port_that_is_taken_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ("127.0.0.1", str(taken.getsockname()[1]), "127.0.0.1", "1")
        done = subprocess.run(
            [sys.executable, "-m", "toolkit.gateway.front", *words], capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"Error: 127.0.0.1:{words[1]} cannot be listened on: ")


def test_pieces_of_two_answers_are_never_held_together():
    """The held bytes of one connection are let go before the next answer is looked at."""

    class Sink:
        def __init__(self):
            self.got = []

        def is_closing(self):
            return False

        def write(self, data):
            self.got.append(bytes(data))

    async def run():
        door = front.Door(("127.0.0.1", 1), set())
        door.transport = Sink()
        inside = front.Inside(door)
        whole = answer(FAILED, UNREAD)
        inside.data_received(whole[:60])
        inside.data_received(whole[60:])
        inside.data_received(answer("200 OK", "b"))
        return door.transport.got

    assert asyncio.run(run()) == [answer("400 Bad Request", UNREAD), answer("200 OK", "b")]
