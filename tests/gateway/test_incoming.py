"""What clients send, read as Triton reads it: which part of a body is JSON, and what is no request at all."""

import gzip
import json
import zlib

import pytest

from toolkit.gateway import incoming
from toolkit.gateway.incoming import NO_OTHER_PROTOCOL, TOO_DEEP, TOO_LARGE, Incoming

DEEP = b"[" * 10_000
INFER, GENERATE = "/v2/models/m/infer", "/v2/models/m/generate"


def request(path=GENERATE, body=DEEP, **headers):
    given = {"Host": "x", "Content-Length": len(body), **{name.replace("_", "-"): headers[name] for name in headers}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value is not None)
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def chunked(*pieces):
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


@pytest.mark.parametrize(
    "sent",
    [
        request(),
        request(INFER),
        request("/v2/repository/index"),
        request(Inference_Header_Content_Length=2),  # it is for tensors only
        request(INFER + "/", Inference_Header_Content_Length=2),
        request("/v2/models/m/generate?/infer", Inference_Header_Content_Length=2),
        request(INFER, Inference_Header_Content_Length=1000),
        request(INFER, Inference_Header_Content_Length="+2"),  # read as a number, and as none here
        request(INFER, Inference_Header_Content_Length=2, inference_header_content_length=9_000),
        request(INFER, gzip.compress(DEEP), Content_Encoding="gzip"),
        request(INFER, zlib.compress(DEEP), Content_Encoding="deflate"),
        request(INFER, DEEP, Content_Encoding="br"),
        request(GENERATE, DEEP, Content_Encoding="gzip"),  # looked at where it is known, and passed over elsewhere
        request(GENERATE, gzip.compress(DEEP), Content_Encoding="gzip"),
        request(INFER, gzip.compress(DEEP), Content_Encoding="gzip", Inference_Header_Content_Length=9_000),
        request(Content_Length=None, Transfer_Encoding="chunked", body=chunked(DEEP[:300], DEEP[:300])),
        request(body=b"{}") + request(),
        request() + request(body=b"{}"),
        b"\r\n" + request(body=b"") + request(),
    ],
)
@pytest.mark.parametrize("step", [1 << 20, 7], ids=["whole", "in pieces"])
def test_json_that_would_end_triton_is_found(sent, step):
    came = Incoming()
    said = [came.refusal(sent[start : start + step]) for start in range(0, len(sent), step)]
    assert TOO_DEEP in said
    assert set(said) <= {"", TOO_DEEP}


FIT = json.dumps({"text_input": "[" * 10_000, "parameters": {"a": [[[1]]]}}).encode()


GO_ON = [
    request(body=FIT),
    request(INFER, b"{}" + DEEP, Inference_Header_Content_Length=2),  # tensors are bytes
    request(INFER, DEEP, Inference_Header_Content_Length=0),
    request("/v2/models/m/versions/1/infer?a=b", b"{}" + DEEP, Inference_Header_Content_Length=2),
    request("http://x:1/v2/models/m/infer", b"{}" + DEEP, Inference_Header_Content_Length=2),
    request(INFER, gzip.compress(b"{}" + DEEP), Content_Encoding="gzip", Inference_Header_Content_Length=2),
    request(INFER, gzip.compress(FIT), Content_Encoding="gzip"),
    request(INFER, gzip.compress(FIT)[:-40], Content_Encoding="gzip"),  # cut off: Triton says so
    request(INFER, b"no gzip", Content_Encoding="gzip"),
    request(INFER, gzip.compress(b"{}") + DEEP, Content_Encoding="gzip"),  # what follows is not read
    request(body=b"{}", Expect="100-continue"),
    b"GET /v2 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
]
END = [
    b"HEAD / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\n",
]


@pytest.mark.parametrize("sent", GO_ON + END)
@pytest.mark.parametrize("step", [1 << 20, 7], ids=["whole", "in pieces"])
def test_everything_else_may_pass(sent, step):
    came = Incoming()
    for start in range(0, len(sent), step):
        assert came.refusal(sent[start : start + step]) == ""
    assert sent in END or came.refusal(request()) == TOO_DEEP


@pytest.mark.parametrize(
    "begins",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nA: ",
        b"GET / HTTP/1.1\r\nA: b\r\nC",
        request(Content_Length=None, Transfer_Encoding="chunked", body=b"1;"),
        request(Content_Length=None, Transfer_Encoding="chunked", body=b"1\r\n{\r\n0\r\nA: "),
    ],
)
def test_a_head_without_end_is_not_kept_for_ever(begins):
    came = Incoming()
    assert came.refusal(begins) == ""
    sent = 0
    while not (said := came.refusal(b"a" * 1000)):
        sent += 1000
        assert sent <= incoming.MAX_HEAD_BYTES
    assert said == incoming.LONG_HEAD


@pytest.mark.parametrize(
    "sent",
    [
        request(INFER, bytes(1 << 20), Inference_Header_Content_Length=0),
        request(INFER, chunked(*[bytes(5000)] * 50), Inference_Header_Content_Length=0, Content_Length=None,
                Transfer_Encoding="chunked"),
        b"GET / HTTP/1.1\r\n\r\n" * 10_000,
    ],
    ids=["body", "chunks", "requests"],
)  # fmt: skip
def test_what_is_large_is_no_long_head(sent):
    came = Incoming()
    assert {came.refusal(sent[start : start + 1000]) for start in range(0, len(sent), 1000)} == {""}
    assert came.refusal(sent) == ""


def test_the_requests_that_came_whole_are_counted():
    came = Incoming()
    counts = []
    for piece in (request(body=b"{}"), request(body=b"{}")[:-1], b"}", request(body=b"") + request(body=b"{}")):
        assert came.refusal(piece) == ""
        counts.append(came.ended)
    assert counts == [1, 1, 2, 4]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"\x16\x03\x01\x02\x00", "Invalid method encountered"),
        (b"\n4]-", "Invalid method encountered"),
        (b"GET / FTP/1.1\r\n\r\n", "Expected HTTP/"),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n", "Content-Length"),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "chunk size"),
        (b"POST / HTTP/1.1\r\nContent-Length : 2\r\n\r\n", "header"),
    ],
)
def test_what_two_readers_could_read_differently_is_no_request(sent, why):
    said = Incoming().refusal(sent)
    assert said.startswith("What was sent is no HTTP request: ")
    assert why.lower() in said.lower()
    assert said.endswith(".")


def test_a_body_behind_a_wish_for_another_protocol_is_refused():
    """The parser takes it for that protocol's bytes, Triton for JSON."""
    asked = {"Connection": "Upgrade", "Upgrade": "h2c"}
    assert Incoming().refusal(request(**asked)) == NO_OTHER_PROTOCOL
    assert Incoming().refusal(request(body=b"{}", **asked)) == NO_OTHER_PROTOCOL


def test_a_small_body_that_inflates_to_much_json_is_refused(monkeypatch):
    monkeypatch.setattr(incoming, "MAX_INFLATED_BYTES", 1 << 20)
    packed = gzip.compress(b" " * (3 << 20))
    assert Incoming().refusal(request(INFER, packed, Content_Encoding="gzip")) == TOO_LARGE
    bounded = request(INFER, packed, Content_Encoding="gzip", Inference_Header_Content_Length=2)
    assert Incoming().refusal(bounded) == ""
