"""One request to a server, for a person who reads the answer as it comes."""

from __future__ import annotations

import asyncio
import signal
import threading
import uuid
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from toolkit.bench.answer import SendFailed
from toolkit.bench.protocols.openai import KEY_VARIABLE
from toolkit.errors import MissingError, ServerError, TrtkError, UnknownName, UsageError
from toolkit.talk import openai_http, triton_grpc, triton_http
from toolkit.talk.question import READER_GONE, Hearing, OnPiece, Question, Reply

__all__ = ["Interrupted", "Question", "Refused", "Reply", "ask", "check", "new_id"]

Ask = Callable[[str, Question, Hearing], Awaitable[None]]
PROTOCOLS: dict[str, Ask] = {
    "grpc": triton_grpc.ask,
    "grpcs": triton_grpc.ask,
    "http": triton_http.ask,
    "https": triton_http.ask,
    "openai+http": openai_http.ask,
    "openai+https": openai_http.ask,
}
HINTS = {
    "connection_refused": "See `trtk status`; start one with `trtk serve ENGINE --detach`.",
    "stream_broken": "`trtk status` says how the server is, `trtk logs` what it said last.",
    "bad_response": "Is this the right port? `trtk status` shows the URLs of each server.",
    "timeout": "Is this the right port? `trtk status` shows the URLs of each server.",
    "late": "Give it longer with --timeout, or ask for fewer tokens.",
}
#: Of a server that lives and does not answer this.
REFUSALS = {
    "server_error": "`trtk logs` may say more.",
    "refused": "Change what is asked; `trtk logs` may say more.",
    "overloaded": "Ask again in a while; `trtk top` shows what it does.",
}


class Refused(ServerError):
    """The server lives and answered with an error."""


class Interrupted(Exception):
    """Ctrl-C ended an answer; the server was told. `reply` is what was heard until then."""

    def __init__(self, reply: Reply) -> None:
        super().__init__("The answer was stopped.")
        self.reply = reply


def new_id() -> str:
    """Return an id for a request: with one, a server can stop it when its client leaves."""
    return f"trtk-{uuid.uuid4().hex[:12]}"


def check(url: str) -> str:
    """Return a URL's scheme; raises where it is no address of a server."""
    try:
        split = urlsplit(url)
        is_address = bool(split.scheme and split.hostname) and split.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise UsageError(f"{url!r} is not a URL.", hint="Write --url grpc://localhost:8001.")
    if split.scheme not in PROTOCOLS:
        raise UnknownName("protocol", split.scheme, PROTOCOLS)
    return split.scheme


def ask(url: str, question: Question, on_piece: OnPiece, *, timeout_s: float = 120.0) -> Reply:
    """Ask one question and hand on each piece of the answer; raises Interrupted on Ctrl-C."""
    scheme = check(url)
    try:
        return asyncio.run(_asked(PROTOCOLS[scheme], url, question, on_piece, timeout_s=timeout_s))
    except SendFailed as error:
        if error.kind == READER_GONE and error.__cause__:
            raise error.__cause__ from None
        raise _explained(error, url) from error


async def _asked(protocol: Ask, url: str, question: Question, on_piece: OnPiece, *, timeout_s: float) -> Reply:
    hearing = Hearing(on_piece)
    task = asyncio.ensure_future(protocol(url, question, hearing))
    is_main = threading.current_thread() is threading.main_thread()
    loop = asyncio.get_running_loop()
    if is_main:
        loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        await asyncio.wait_for(task, timeout_s)
    except asyncio.TimeoutError as error:
        raise SendFailed("late", f"No whole answer within {timeout_s:g} s.") from error
    except asyncio.CancelledError:
        raise Interrupted(hearing.reply(question)) from None
    finally:
        if is_main:
            loop.remove_signal_handler(signal.SIGINT)
    return hearing.reply(question)


def _explained(error: SendFailed, url: str) -> TrtkError:
    said = str(error).strip()
    if error.kind == "connection_refused":
        return ServerError(f"No server answers at {url}: {said}", hint=HINTS[error.kind])
    if error.kind == "unauthorized":
        return MissingError(f"{url} lets nobody in without a key: {said}", hint=f"Put one into ${KEY_VARIABLE}.")
    if error.kind in REFUSALS:
        return Refused(f"The server refused: {said}", hint=REFUSALS[error.kind])
    return ServerError(f"{url}: {said}", hint=HINTS.get(error.kind))
