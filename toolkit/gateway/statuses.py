"""What a client is told of a gRPC status, and of an error that comes inside a stream's message, which has no status."""

from __future__ import annotations

import re
from typing import Any

from toolkit.gateway import refusals
from toolkit.gateway.refusals import Kind, Refusal

#: A request's parameter: our models then put the name of the error's code and a colon before its sentence. Triton's own
#: way to tell it, the metadata `triton_grpc_error`, ends a server 2.51 within some hundred errors: see decision 32.
NAMES_CODE = "trtk_names_code"
#: What Triton puts before a model's own sentence.
STEP_PREFIX = re.compile(r"^(?:in ensemble '[^']*', )+")
CODE = re.compile(r"^(?P<name>[A-Z_]+): ")
QUEUE_IS_FULL = re.compile(r"maximum queue size", re.IGNORECASE)
#: Triton's names, which our models write, and gRPC's.
KINDS = {
    "INVALID_ARG": refusals.BAD_REQUEST,
    "INVALID_ARGUMENT": refusals.BAD_REQUEST,
    "UNSUPPORTED": refusals.BAD_REQUEST,
    "NOT_FOUND": refusals.NOT_FOUND,
    "UNAVAILABLE": refusals.UNAVAILABLE,
    "CANCELLED": refusals.UNAVAILABLE,
    "DEADLINE_EXCEEDED": refusals.UNAVAILABLE,
    "ALREADY_EXISTS": refusals.FAILED,
    "INTERNAL": refusals.FAILED,
    "UNKNOWN": refusals.FAILED,
}
#: Of sentences without a code: Triton's own, and those of the TensorRT-LLM backend. The first that fits counts.
SENTENCES = (
    (re.compile(r"unknown model: .* is not found"), refusals.NOT_FOUND),
    (re.compile(r"unknown model: |is not ready|stopping|timeout expired|not healthy"), refusals.UNAVAILABLE),
    (re.compile(r"exceeds maximum input length|unexpected (?:shape|datatype|inference input)"), refusals.BAD_REQUEST),
)
NO_WORDS = {
    refusals.UNAVAILABLE: "The model server did not finish this request.",
    refusals.FAILED: "The model server stopped on this request.",
}


def of_status(error: Any) -> Refusal:
    """Return the refusal for a grpc.RpcError."""
    said = _sentence(error.details() or "")
    if "failed to connect" in said.lower():
        return Refusal(refusals.UNAVAILABLE, "The model server does not answer; it may be starting or stopped.")
    return _refusal(KINDS.get(error.code().name, refusals.FAILED), said)


def of_message(text: str) -> Refusal:
    """Return the refusal for the error_message of a stream."""
    said = _sentence(text)
    code = CODE.match(said)
    if code and code["name"] in KINDS:
        return _refusal(KINDS[code["name"]], said[code.end() :])
    return _refusal(next((kind for words, kind in SENTENCES if words.search(said)), refusals.FAILED), said)


def _refusal(kind: Kind, said: str) -> Refusal:
    if QUEUE_IS_FULL.search(said):
        return queue_is_full()
    return Refusal(kind, said or NO_WORDS.get(kind, "The model refuses this request."))


def _sentence(text: str) -> str:
    return STEP_PREFIX.sub("", text.strip().partition("\n")[0])


def queue_is_full() -> Refusal:
    """Return the refusal of a request that found too many others in front of it."""
    return Refusal(refusals.TOO_MANY, "The model's queue is full; try again later.", retry_after_s=1)
