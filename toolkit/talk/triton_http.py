"""Asking over Triton's HTTP: generate_stream, or generate for a whole answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from toolkit.bench import http1
from toolkit.bench.answer import SendFailed
from toolkit.bench.protocols.triton_http import OK, described, error_in
from toolkit.bench.tensors import INPUT_COUNT, OUTPUT_COUNT, TEXT
from toolkit.talk import fields
from toolkit.talk.question import Hearing, Question


async def ask(url: str, question: Question, hearing: Hearing) -> None:
    """Ask and listen until the answer's end."""
    client = http1.Client(url)
    try:
        model = await described(client, question.model)
        fields.outputs([one["name"] for one in model["outputs"]], question.model)
        values = fields.values(question, [one["name"] for one in model["inputs"]])
        body = json.dumps({"id": question.request_id, **values}).encode()
        verb = "generate_stream" if question.is_streaming else "generate"
        hearing.sent()
        async with client.request("POST", f"/v2/models/{question.model}/{verb}", body) as response:
            if response.status != OK:
                raise SendFailed("server_error", error_in(await response.body()))
            if question.is_streaming:
                async for data in http1.server_sent_events(response):
                    take(event_of(data), hearing)
            else:
                take(event_of(await response.body()), hearing)
    finally:
        await client.close()


def event_of(data: bytes) -> Mapping[str, Any]:
    """Return one event; an error may come after a 200."""
    try:
        event = json.loads(data)
    except ValueError as error:
        raise SendFailed("bad_response", f"An event is not JSON: {data[:80]!r}.") from error
    if not isinstance(event, dict):
        raise SendFailed("bad_response", f"An event is not a JSON object: {data[:80]!r}.")
    if "error" in event:
        said = event["error"]
        raise SendFailed("server_error", str(said["message"] if isinstance(said, dict) else said))
    return event


def take(event: Mapping[str, Any], hearing: Hearing) -> None:
    """Read one event."""
    if INPUT_COUNT in event:
        hearing.answer.input_tokens = event[INPUT_COUNT]
    if reason := fields.text_of(event, fields.FINISH_REASON):
        hearing.finish_reason = reason
    hearing.add(fields.text_of(event, TEXT), count=event.get(OUTPUT_COUNT))
