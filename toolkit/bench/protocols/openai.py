"""OpenAI's HTTP: /chat/completions and /completions, streamed or whole, of any server that speaks it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from typing import Any

from toolkit.bench import http1
from toolkit.bench.answer import Answer, SendFailed
from toolkit.bench.session import Ask, ModelCounts, Protocol, ServerFacts, Session
from toolkit.errors import ServerError, UnknownName, UsageError
from toolkit.specs import LoadProfile

OK = 200
SCHEME = "openai+"
#: Where the key is looked for: never on a command line, never in a report.
KEY_VARIABLE = "OPENAI_API_KEY"
PATHS = {"chat": "/chat/completions", "completions": "/completions"}
DONE = b"[DONE]"
#: What reading JSON of another form than the protocol's ends with.
NOT_AS_MEANT = (AttributeError, TypeError, KeyError, IndexError)
#: What not every server knows, tried once each before the clock starts: (name, fields of the request).
EXTRAS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("counts each chunk", {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    ("counts", {"stream_options": {"include_usage": True}}),
    ("ignores the end", {"ignore_eos": True}),
    ("has a minimum", {"min_tokens": 1}),
)
PROBE = Ask(request_id="", prompt="Hello", max_tokens=1, seed=0)


class OpenAISession:
    """Requests are JSON; answers are server-sent events that end with [DONE], or one document."""

    def __init__(self, client: http1.Client, profile: LoadProfile, *, server: str) -> None:
        self._client = client
        self._profile = profile
        self._path = PATHS[profile.endpoint]
        self._extras: set[str] = set()
        self.facts = ServerFacts(
            name=server,
            version="",
            model=profile.model,
            model_version="",
            platform=f"OpenAI {profile.endpoint}",
            has_output_count=not profile.is_streaming,
            has_input_count=not profile.is_streaming,
            has_eos_control=False,
        )

    async def learn(self) -> None:
        """Find out what the server understands beyond what all do, with answers of one token."""
        for name, fields in EXTRAS:
            is_about_streams = "stream_options" in fields
            if is_about_streams and (not self._profile.is_streaming or self.facts.has_output_count):
                continue
            answer = Answer()
            try:
                await self._exchange(self._body(PROBE) | fields, answer)
            except SendFailed as error:
                if error.kind == "connection_refused":
                    raise
                continue  # what else goes wrong is for the measurement to say
            if not is_about_streams or answer.total is not None:
                self._extras.add(name)
                self._note(name)

    def _note(self, name: str) -> None:
        if name in {"counts", "counts each chunk"}:
            self.facts = replace(self.facts, has_output_count=True, has_input_count=True)
        if name in {"ignores the end", "has a minimum"}:
            self.facts = replace(self.facts, has_eos_control=True)

    def _body(self, ask: Ask) -> dict[str, Any]:
        profile, max_tokens = self._profile, ask.max_tokens
        is_chat = profile.endpoint == "chat"
        asked: dict[str, Any] = {"messages": messages_of(ask)} if is_chat else {"prompt": ask.whole_prompt}
        body = asked | {
            "model": self.facts.model,
            "max_tokens": max_tokens,
            "temperature": 0,
            "seed": ask.seed,
            "stream": profile.is_streaming,
        }
        for name, fields in EXTRAS:
            if name not in self._extras:
                continue
            if "stream_options" in fields:
                body |= fields
            elif profile.is_eos_ignored:
                body |= {"min_tokens": max_tokens} if name == "has a minimum" else fields
        return body

    async def send(self, ask: Ask, answer: Answer) -> None:
        """Send one request and feed its events into ANSWER."""
        await self._exchange(self._body(ask), answer, request_id=ask.request_id)

    async def _exchange(self, document: dict[str, Any], answer: Answer, *, request_id: str = "") -> None:
        body = json.dumps(document).encode()
        ends: list[bool] = []

        def receive(data: bytes, now: float) -> None:
            try:
                if data == DONE or (data and take(data, now, answer)):
                    ends.append(True)
            except NOT_AS_MEANT as error:
                raise _strange(data) from error

        is_streaming = self._profile.is_streaming
        answer.sent = time.perf_counter()
        result = await self._client.call(
            "POST", self._path, body, receive=receive if is_streaming else None, request_id=request_id
        )
        if result.status != OK:
            raise failure_of(result.status, result.body)
        if not is_streaming:
            try:
                whole(result.body, result.ended_at, answer)
            except NOT_AS_MEANT as error:
                raise _strange(result.body) from error
        elif not ends:
            raise SendFailed("bad_response", "The stream ended without [DONE] and without a finish_reason.")
        answer.end = result.ended_at

    async def statistics(self) -> dict[str, ModelCounts] | None:
        """Return nothing: OpenAI's protocol has no statistics."""
        return None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


def _need_counts(answer: Answer) -> None:
    for count in (answer.input_tokens, answer.total):
        if not isinstance(count, int | None):
            raise TypeError(count)


def _strange(raw: bytes) -> SendFailed:
    return SendFailed("bad_response", f"An event is JSON of another form than OpenAI's: {raw[:80]!r}.")


def messages_of(ask: Ask) -> list[dict[str, str]]:
    """Return a conversation as OpenAI's messages."""
    said = [
        {"role": role, "content": text}
        for turn in ask.history
        for role, text in (("user", turn.prompt), ("assistant", turn.answer))
    ]
    return [*said, {"role": "user", "content": ask.prompt}]


def take(data: bytes, now: float, answer: Answer) -> bool:
    """Read one event into ANSWER; return whether it says why the answer ended."""
    event = document_of(data)
    if event.get("error"):  # some send null with every event
        raise SendFailed("server_error", message_of(event))
    usage = event.get("usage")
    if usage:
        answer.input_tokens = usage.get("prompt_tokens", answer.input_tokens)
        answer.total = usage.get("completion_tokens", answer.total)
        _need_counts(answer)
    text, is_over = "", False
    for choice in event.get("choices") or ():
        delta = choice.get("delta")
        piece = choice.get("text") if delta is None else (delta.get("content") or delta.get("reasoning_content"))
        text += piece or ""
        is_over = is_over or choice.get("finish_reason") is not None
    if text:
        if answer.pieces is not None:
            answer.pieces.append(text.encode())
        answer.add(now, has_text=True, count=None, chars=len(text))
    return is_over


def whole(raw: bytes, now: float, answer: Answer) -> None:
    """Read an answer that was not streamed."""
    document = document_of(raw)
    if document.get("error"):
        raise SendFailed("server_error", message_of(document))
    usage = document.get("usage") or {}
    choices = document.get("choices") or [{}]
    message = choices[0].get("message")
    text = choices[0].get("text") if message is None else message.get("content")
    answer.input_tokens = usage.get("prompt_tokens")
    answer.total = usage.get("completion_tokens")
    _need_counts(answer)
    if text and answer.pieces is not None:
        answer.pieces.append(text.encode())
    answer.add(now, has_text=bool(text), count=None)


def document_of(raw: bytes) -> dict[str, Any]:
    """Return a JSON object."""
    try:
        document = json.loads(raw.decode())  # of bytes it would guess the encoding first
    except ValueError as error:
        raise SendFailed("bad_response", f"An event is not JSON: {raw[:80]!r}.") from error
    if not isinstance(document, dict):
        raise SendFailed("bad_response", f"An event is not a JSON object: {raw[:80]!r}.")
    return document


def failure_of(status: int, raw: bytes) -> SendFailed:
    """Return what an answer other than 200 means: overloaded, refused, or the server's fault."""
    try:
        said = message_of(document_of(raw))
    except SendFailed:
        said = raw[:200].decode(errors="replace")
    kinds = {429: "overloaded", 503: "overloaded", 401: "unauthorized", 403: "unauthorized"}
    kind = kinds.get(status, "refused" if 400 <= status < 500 else "server_error")
    return SendFailed(kind, f"HTTP {status}: {said}")


def message_of(document: dict[str, Any]) -> str:
    """Return the sentence of an error document."""
    error = document.get("error", document)
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


async def connect(profile: LoadProfile) -> Session:
    """Ask for the models, pick the one, and learn what the server understands."""
    if profile.endpoint not in PATHS:
        raise UsageError(f"There is no endpoint {profile.endpoint!r}.", hint=f"Write --endpoint {' or '.join(PATHS)}.")
    key = os.environ.get(KEY_VARIABLE)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    client = http1.Client(profile.url.removeprefix(SCHEME), headers=headers)
    try:
        profile = replace(profile, model=await model_of(client, profile.model))
        session = OpenAISession(client, profile, server=f"OpenAI-compatible server at {profile.url}")
        await session.learn()
    except UnknownName:
        await client.close()
        raise
    except SendFailed as error:
        await client.close()
        raise ServerError(
            f"No OpenAI-compatible server answers at {profile.url}: {error}", hint=_hint(error, profile.url)
        ) from error
    return session


def _hint(error: SendFailed, url: str) -> str:
    if error.kind == "unauthorized":
        return f"Put the key into the environment variable {KEY_VARIABLE}."
    return f"The URL ends where /models begins, as in openai+http://localhost:9000/v1; this is {url}."


async def model_of(client: http1.Client, wanted: str) -> str:
    """Return the model to ask: the one that is wanted, or the first that the server has."""
    result = await client.call("GET", "/models")
    if result.status != OK:
        raise failure_of(result.status, result.body)
    listed = document_of(result.body).get("data")
    names = [str(entry.get("id")) for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    if not names:
        raise SendFailed("bad_response", "Its /models lists no model.")
    if wanted and wanted not in names:
        raise UnknownName("model on the server", wanted, names)
    return wanted or names[0]


PROTOCOL = Protocol(name="openai", title="OpenAI HTTP (SSE)", schemes=("openai+http", "openai+https"), connect=connect)
