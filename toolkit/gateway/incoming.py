"""What a client sends on one connection: whether it is HTTP, and whether Triton can read it and live."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

import httptools

from toolkit.gateway.nesting import MAX_DEPTH, Nesting

#: A body may hold more than its JSON where tensors go as they are; elsewhere Triton does not look at that header.
TENSORS = re.compile(rb"(?:http://[^/?#]*)?/v2/models/[^/?#]+(?:/versions/[^/?#]+)?/infer(?:\?.*)?", re.DOTALL)
JSON_LENGTH, ENCODING = b"inference-header-content-length", b"content-encoding"
HEADERS = frozenset({JSON_LENGTH, ENCODING, b"content-length", b"transfer-encoding"})
COMPRESSIONS = frozenset({b"gzip", b"deflate"})
ANY_COMPRESSION = 32 + zlib.MAX_WBITS  # zlib's: whichever of the two it is
#: Of a compressed body's JSON, and how much of it is looked at in one go.
MAX_INFLATED_BYTES, INFLATED_BYTES = 64 << 20, 1 << 20

#: Of a request's head, or between two pieces of its body: what the parser keeps until it is whole.
MAX_HEAD_BYTES = 64 << 10

TOO_DEEP = f"The request's JSON nests deeper than {MAX_DEPTH} levels."
TOO_LARGE = f"The request's JSON is larger than {MAX_INFLATED_BYTES >> 20} MiB once it is decompressed."
LONG_HEAD = f"The request's headers are longer than {MAX_HEAD_BYTES >> 10} KiB."
NO_OTHER_PROTOCOL = "A request with a body cannot ask for another protocol: send it without the header Upgrade."


class Body:
    """One request's body as it comes; what is wrong with it stays said."""

    refusal = ""

    def __init__(self, *, json_bytes: int | None, is_compressed: bool) -> None:
        """Look at so many of its bytes, after decompression; None: at all."""
        self._left = json_bytes
        self._inflating = zlib.decompressobj(ANY_COMPRESSION) if is_compressed else None
        self._inflated_bytes = 0
        self._nesting = Nesting()

    def take(self, data: bytes) -> None:
        """Look at its next bytes."""
        for piece in self._inflated(data) if self._inflating else (data,):
            seen = piece[: self._left]
            if self._left is not None:
                self._left -= len(seen)
            if self._nesting.is_too_deep(seen):
                self.refusal = TOO_DEEP
            if self.refusal or self._left == 0:
                return

    def _inflated(self, data: bytes) -> Iterator[bytes]:
        """Return what is in it, piece by piece; nothing of what cannot be decompressed, which Triton says itself."""
        assert self._inflating
        while data:
            try:
                piece = self._inflating.decompress(data, INFLATED_BYTES)
            except zlib.error:
                return
            self._inflated_bytes += len(piece)
            if self._inflated_bytes > MAX_INFLATED_BYTES:
                self.refusal = TOO_LARGE
            yield piece
            data = self._inflating.unconsumed_tail


class Incoming:
    """The requests of one connection, one after another; its methods `on_*` are called by httptools' parser."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._bodies: tuple[Body, ...] = ()  # one body, by each way to read it
        self._kept_bytes = 0  # since the parser last said something
        self.ended = 0  # how many have come whole, and may pass
        self.on_message_begin()

    def refusal(self, data: bytes) -> str:
        """Return why what has come next cannot be passed on; empty where it can."""
        self._kept_bytes += len(data)
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as asked:  # Triton speaks HTTP on, and so does the client then
                if self._has_body:
                    return NO_OTHER_PROTOCOL
                data = data[asked.args[0] :]
            except httptools.HttpParserError as error:
                return f"What was sent is no HTTP request: {str(error).rstrip('.')}."
        return self._body_refusal or (LONG_HEAD if self._kept_bytes > MAX_HEAD_BYTES else "")

    def on_message_begin(self) -> None:
        """Forget the request before."""
        self._target = b""
        self._headers: dict[bytes, list[bytes]] = {}

    def on_url(self, part: bytes) -> None:
        """Keep what is asked; it may come in parts."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header that says something of the body."""
        if name.lower() in HEADERS:
            self._headers.setdefault(name.lower(), []).append(value)

    def on_headers_complete(self) -> None:
        """Begin with a body, unless one before it is refused."""
        self._kept_bytes = 0
        if not self._body_refusal:
            self._bodies = tuple(self._readings())

    def on_body(self, data: bytes) -> None:
        """Look at a part of the body, as it was before it was cut into chunks."""
        self._kept_bytes = 0
        if not self._body_refusal:
            for one in self._bodies:
                one.take(data)

    def on_message_complete(self) -> None:
        """Count a request that may pass."""
        self._kept_bytes = 0
        self.ended += not self._body_refusal

    @property
    def _body_refusal(self) -> str:
        return next((one.refusal for one in self._bodies if one.refusal), "")

    @property
    def _has_body(self) -> bool:
        return b"transfer-encoding" in self._headers or self._headers.get(b"content-length", [b"0"]) != [b"0"]

    def _readings(self) -> Iterator[Body]:
        is_compressed = self._headers.get(ENCODING) in [[one] for one in COMPRESSIONS]
        if not TENSORS.fullmatch(self._target):
            yield Body(json_bytes=None, is_compressed=False)  # whatever its headers say
            if is_compressed:
                yield Body(json_bytes=None, is_compressed=True)
            return
        lengths = self._headers.get(JSON_LENGTH, [])
        is_bounded = len(lengths) == 1 and re.fullmatch(rb"\d{1,9}", lengths[0])
        yield Body(json_bytes=int(lengths[0]) if is_bounded else None, is_compressed=is_compressed)
