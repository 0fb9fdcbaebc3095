"""Asking an OpenAI endpoint: completions for a prompt, chat completions for messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from toolkit.bench import http1
from toolkit.bench.answer import SendFailed
from toolkit.bench.protocols.triton_http import OK, error_in
from toolkit.errors import MissingError, UnknownName
from toolkit.talk.question import Hearing, Question
from toolkit.talk.triton_http import event_of

UNAUTHORIZED, NOT_FOUND = 401, 404
DONE = b"[DONE]"
KEY_HINT = "Put an API key of this server into $TRTK_API_KEY."


async def ask(url: str, question: Question, hearing: Hearing) -> None:
    """Ask and listen until the answer's end."""
    headers = {"Authorization": f"Bearer {question.api_key}"} if question.api_key else {}
    client = http1.Client(url.removeprefix("openai+"), headers=headers)
    try:
        models = await _models(client)
        model = question.model or models[0]
        if model not in models:
            raise UnknownName("model on the server", model, models)
        verb = "chat/completions" if question.messages else "completions"
        hearing.sent()
        async with client.request("POST", f"/{verb}", _body(question, model)) as response:
            if response.status != OK:
                raise SendFailed("server_error", said_in(await response.body()))
            if question.is_streaming:
                async for data in http1.server_sent_events(response):
                    if data != DONE:
                        take(event_of(data), hearing)
            else:
                take(event_of(await response.body()), hearing)
    finally:
        await client.close()


async def _models(client: http1.Client) -> list[str]:
    status, document = await client.json("GET", "/models")
    if status == UNAUTHORIZED:
        raise MissingError("The server wants an API key.", hint=KEY_HINT)
    listed = document.get("data") if isinstance(document, dict) else None
    if status != OK or not listed:
        raise SendFailed("bad_response", f"GET …/models is answered with {status} and no models.")
    return [one["id"] for one in listed]


def _body(question: Question, model: str) -> bytes:
    body: dict[str, Any] = {"model": model, "max_tokens": question.max_tokens, **question.settings()}
    body |= {"messages": list(question.messages)} if question.messages else {"prompt": question.prompt}
    body |= {"stop": list(question.stop)} if question.stop else {}
    if question.is_streaming:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


def take(event: Mapping[str, Any], hearing: Hearing) -> None:
    """Read one event or a whole answer."""
    if usage := event.get("usage"):
        hearing.answer.input_tokens = usage.get("prompt_tokens")
        hearing.answer.counts = [usage["completion_tokens"]] if "completion_tokens" in usage else []
    for choice in event.get("choices") or ():
        said = choice.get("delta") or choice.get("message") or choice
        hearing.add(said.get("content") or said.get("text") or "")
        hearing.finish_reason = choice.get("finish_reason") or hearing.finish_reason


def said_in(raw: bytes) -> str:
    """Return the sentence of an error in OpenAI's form."""
    try:
        return str(json.loads(raw)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return error_in(raw)
