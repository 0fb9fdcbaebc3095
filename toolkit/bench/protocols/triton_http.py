"""Triton's HTTP: generate_stream (server-sent events) and generate."""

from __future__ import annotations

import json
import time
from typing import Any

from toolkit.bench import http1, tensors
from toolkit.bench.answer import Answer, SendFailed
from toolkit.bench.session import Ask, ModelCounts, Protocol, ServerFacts, Session
from toolkit.errors import ServerError, UnknownName
from toolkit.specs import LoadProfile

OK = 200


class HttpSession:
    """Requests are flat JSON; each answer is one event, or one document."""

    def __init__(self, client: http1.Client, profile: LoadProfile, described: Any, server: Any) -> None:
        self._client = client
        self._profile = profile
        self._layout = tensors.layout_of(
            profile.model,
            [tensors.Tensor(name=i["name"], datatype=i["datatype"], dims=len(i["shape"])) for i in described["inputs"]],
            [output["name"] for output in described["outputs"]],
        )
        verb = "generate_stream" if profile.is_streaming else "generate"
        self._path = f"/v2/models/{profile.model}/{verb}"
        self.facts = ServerFacts(
            name=server.get("name", ""),
            version=server.get("version", ""),
            model=profile.model,
            model_version=max(described.get("versions", ()), default=""),
            platform=described.get("platform", ""),
            has_output_count=tensors.OUTPUT_COUNT in self._layout.outputs,
            has_input_count=tensors.INPUT_COUNT in self._layout.outputs,
            has_eos_control=self._layout.has_eos_control,
        )

    def request(self, ask: Ask) -> bytes:
        """Return one request's body."""
        values: dict[str, Any] = {"id": ask.request_id, self._layout.inputs["prompt"].name: ask.whole_prompt}
        values |= self._layout.values(self._profile, max_tokens=ask.max_tokens, seed=ask.seed)
        return json.dumps(values).encode()

    async def send(self, ask: Ask, answer: Answer) -> None:
        """Send one request and feed its events into ANSWER."""
        body = self.request(ask)
        is_streaming = self._profile.is_streaming
        answer.sent = time.perf_counter()
        result = await self._client.call(
            "POST", self._path, body, receive=(lambda data, now: take(data, now, answer)) if is_streaming else None
        )
        if result.status != OK:
            raise SendFailed("server_error", f"HTTP {result.status}: {error_in(result.body)}")
        if not is_streaming:
            take(result.body, result.ended_at, answer)
        answer.end = result.ended_at

    async def statistics(self) -> dict[str, ModelCounts] | None:
        """Return the server's counts by model."""
        try:
            status, document = await self._client.json("GET", "/v2/models/stats")
        except SendFailed:
            return None
        return {model["name"]: counts_of(model) for model in document["model_stats"]} if status == OK else None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


def take(data: bytes, now: float, answer: Answer) -> None:
    """Read one event into ANSWER; Triton may send an error after a 200."""
    try:
        event = json.loads(data.decode())  # of bytes it would guess the encoding first
    except ValueError as error:
        raise SendFailed("bad_response", f"An event is not JSON: {data[:80]!r}.") from error
    if not isinstance(event, dict):
        raise SendFailed("bad_response", f"An event is not a JSON object: {data[:80]!r}.")
    if "error" in event:
        raise SendFailed("server_error", str(event["error"]))
    if tensors.INPUT_COUNT in event:
        answer.input_tokens = event[tensors.INPUT_COUNT]
    text = event.get(tensors.TEXT)
    if text and answer.pieces is not None:
        answer.pieces.append(str(text).encode())
    answer.add(now, has_text=bool(text), count=event.get(tensors.OUTPUT_COUNT))


def counts_of(model: dict[str, Any]) -> ModelCounts:
    """Return one model's statistics; Triton counts nanoseconds and leaves zeros out."""
    stats = model.get("inference_stats", {})

    def count(name: str) -> int:
        return int(stats.get(name, {}).get("count", 0))

    def seconds(name: str) -> float:
        return float(stats.get(name, {}).get("ns", 0)) / 1e9

    return ModelCounts(
        requests=count("success") + count("fail"),
        failures=count("fail"),
        executions=int(model.get("execution_count", 0)),
        queue_s=seconds("queue"),
        compute_input_s=seconds("compute_input"),
        compute_infer_s=seconds("compute_infer"),
        compute_output_s=seconds("compute_output"),
    )


def error_in(raw: bytes) -> str:
    """Return the sentence of an error document, or how the answer begins."""
    try:
        return str(json.loads(raw)["error"])
    except (ValueError, KeyError, TypeError):
        return raw[:200].decode(errors="replace")


async def connect(profile: LoadProfile) -> Session:
    """Read the model's tensors."""
    client = http1.Client(profile.url)
    try:
        _, server = await client.json("GET", "/v2")
        found = await described(client, profile.model)
    except UnknownName:
        await client.close()
        raise
    except SendFailed as error:
        await client.close()
        raise ServerError(
            f"No Triton server answers at {profile.url}: {error}",
            hint="See `trtk status`; start one with `trtk serve ENGINE --detach`.",
        ) from error
    return HttpSession(client, profile, found, server or {})


async def described(client: http1.Client, model: str) -> Any:
    """Return a model's metadata; raises UnknownName with those that the server has."""
    status, found = await client.json("GET", f"/v2/models/{model}")
    if status != OK:
        # The index of the repository is for those who may load models; statistics are for everybody.
        _, stats = await client.json("GET", "/v2/models/stats")
        names = {one["name"] for one in stats.get("model_stats", ())} if isinstance(stats, dict) else ()
        raise UnknownName("model on the server", model, names)
    if not (isinstance(found, dict) and "inputs" in found and "outputs" in found):
        raise SendFailed("bad_response", "What answers there is not Triton's HTTP endpoint.")
    return found


PROTOCOL = Protocol(
    name="triton-http", title="Triton HTTP (generate_stream)", schemes=("http", "https"), connect=connect
)
