"""Which of Triton's 500s and 501s are the request's fault: it could not be read, and no server has failed."""

from __future__ import annotations

import json
import re

#: Longer heads and answers pass as they are.
MAX_HEAD_BYTES, MAX_BODY_BYTES = 8 << 10, 64 << 10
FAILED = tuple(b"HTTP/1.%d %d " % (minor, status) for minor in (0, 1) for status in (500, 501))
#: It may come in one piece with the answer.
CONTINUE = re.compile(rb"HTTP/1\.1 100 [^\r\n]*\r\n\r\n")
STATUS_LINE = re.compile(rb"(?P<version>HTTP/1\.[01]) 50[01] [^\r\n]*\r\n")
LENGTH = re.compile(rb"^content-length:[ \t]*(?P<bytes>\d{1,9})[ \t]*\r$", re.IGNORECASE | re.MULTILINE)
ENCODED = re.compile(rb"^(?:content|transfer)-encoding:", re.IGNORECASE | re.MULTILINE)
END_OF_HEAD = b"\r\n\r\n"
#: What only Triton's readers of requests say.
SENTENCES = re.compile(
    r"failed to parse the request JSON|attempt to access JSON non-|attempt to access non-existing"
    r"|attempt to get members for non-object|^[Uu]nable to parse "
    r"|^Unsupported compression type$|^HTTP end point doesn't support models with decoupled"
)


def begins(data: bytes) -> bool:
    """Whether what has come may be an answer that is looked at."""
    return data.startswith((*FAILED, b"HTTP/1.1 100 "))


def settled(came: bytes) -> bytes | None:
    """Return what has come as the client is to have it; None while more of it must come to be decided.

    Came is an answer's bytes from its first one. An answer of 500 or 501 to a request that could not be read becomes
    one of 400; all else stays as it is.
    """
    before = CONTINUE.match(came)
    start = before.end() if before else 0
    if not came.startswith(FAILED, start):
        return came
    end = came.find(END_OF_HEAD, start)
    if end < 0:
        return None if len(came) - start < MAX_HEAD_BYTES else came
    status, body = STATUS_LINE.match(came, start), came[end + len(END_OF_HEAD) :]
    body_bytes = _body_bytes(came[start : end + 2])
    if len(body) < body_bytes:
        return None
    if not status or not body_bytes or not is_misread(body):
        return came
    return came[:start] + status["version"] + b" 400 Bad Request\r\n" + came[status.end() :]


def _body_bytes(head: bytes) -> int:
    """Return how long a body is that can be looked at; 0 where it cannot."""
    length = LENGTH.search(head)
    if not length or ENCODED.search(head) or int(length["bytes"]) > MAX_BODY_BYTES:
        return 0
    return int(length["bytes"])


def is_misread(body: bytes) -> bool:
    """Whether Triton says in this body that it could not read the request."""
    try:
        return bool(SENTENCES.search(json.loads(body)["error"]))
    except (ValueError, KeyError, TypeError):
        return False
