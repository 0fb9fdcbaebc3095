"""Why a request is not answered: OpenAI's error form, its types and codes, and the HTTP status."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from toolkit.errors import TrtkError

#: Of nginx, for logs and metrics: the client closed the connection, so nobody reads this status.
CLIENT_LEFT = 499


@dataclass(frozen=True)
class Kind:
    """A family of refusals as OpenAI names them."""

    status: int
    type: str
    code: str | None = None


BAD_REQUEST = Kind(400, "invalid_request_error")
UNAUTHORIZED = Kind(401, "invalid_request_error", "invalid_api_key")
FORBIDDEN = Kind(403, "invalid_request_error", "origin_not_allowed")
NOT_FOUND = Kind(404, "invalid_request_error", "model_not_found")
NO_SUCH_PATH = Kind(404, "invalid_request_error", "unknown_url")
WRONG_METHOD = Kind(405, "invalid_request_error", "method_not_supported")
TIMED_OUT = Kind(408, "timeout", "timeout")
TOO_LARGE = Kind(413, "invalid_request_error", "request_too_large")
TOO_MANY = Kind(429, "requests", "rate_limit_exceeded")
FAILED = Kind(500, "server_error")
UNAVAILABLE = Kind(503, "server_error", "service_unavailable")


class Refusal(TrtkError):
    """A request that gets an error for an answer."""

    def __init__(
        self, kind: Kind, sentence: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.param = param
        self.retry_after_s = retry_after_s

    def document(self) -> dict[str, Any]:
        """Return the error as OpenAI writes it."""
        kind = self.kind
        return {"error": {"message": str(self), "type": kind.type, "param": self.param, "code": kind.code}}

    def body(self) -> bytes:
        """Return the document's bytes."""
        return json.dumps(self.document()).encode()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that go with the status."""
        if self.retry_after_s is None:
            return []
        return [(b"retry-after", str(max(1, math.ceil(self.retry_after_s))).encode())]


class ClientLeft(TrtkError):
    """Nobody waits for this answer any more."""


def bad(sentence: str, *, param: str | None = None) -> Refusal:
    """Return the refusal of a request that is wrong in itself."""
    return Refusal(BAD_REQUEST, sentence, param=param)
