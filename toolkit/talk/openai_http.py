"""Asking an OpenAI endpoint: completions for a prompt, chat completions for messages."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from toolkit.bench import http1
from toolkit.bench.answer import SendFailed
from toolkit.bench.protocols.openai import (
    DONE,
    KEY_VARIABLE,
    OK,
    PATHS,
    SCHEME,
    document_of,
    failure_of,
    message_of,
    model_of,
)
from toolkit.talk.question import Hearing, Question


async def ask(url: str, question: Question, hearing: Hearing) -> None:
    """Ask and listen until the answer's end."""
    key = os.environ.get(KEY_VARIABLE)
    client = http1.Client(url.removeprefix(SCHEME), headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        question = replace(question, model=await model_of(client, question.model))
        hearing.model = question.model
        path = PATHS["chat" if question.messages else "completions"]
        hearing.sent()
        async with client.request("POST", path, _body(question), request_id=question.request_id) as response:
            if response.status != OK:
                raise failure_of(response.status, await response.body())
            if not question.is_streaming:
                take(await response.body(), hearing)
                return
            is_over = False
            async for data in http1.server_sent_events(response):
                is_over = is_over or data == DONE
                if data and data != DONE:
                    take(data, hearing)
        if hearing.finish_reason is None and not is_over:
            raise SendFailed("stream_broken", "The stream ended before the answer did.")
    finally:
        await client.close()


def _body(question: Question) -> bytes:
    body: dict[str, Any] = {"model": question.model, "max_tokens": question.max_tokens, **question.settings()}
    body |= {"messages": list(question.messages)} if question.messages else {"prompt": question.prompt}
    body |= {"stop": list(question.stop)} if question.stop else {}
    if question.is_streaming:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


def take(data: bytes, hearing: Hearing) -> None:
    """Read one event, or a whole answer."""
    event: Mapping[str, Any] = document_of(data)
    if "error" in event:
        raise SendFailed("server_error", message_of(dict(event)))
    if usage := event.get("usage"):
        hearing.answer.input_tokens = usage.get("prompt_tokens")
        hearing.answer.total = usage.get("completion_tokens")
    for choice in event.get("choices") or ():
        said = choice.get("delta") or choice.get("message") or choice
        if text := said.get("content") or said.get("text"):
            hearing.add(text)
        hearing.finish_reason = choice.get("finish_reason") or hearing.finish_reason
