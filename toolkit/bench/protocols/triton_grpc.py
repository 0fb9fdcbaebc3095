"""Triton's gRPC: one ModelStreamInfer stream per request, or ModelInfer where nothing streams."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any

from toolkit.bench import http2, tensors
from toolkit.bench.answer import Answer, SendFailed
from toolkit.bench.session import Ask, ModelCounts, Protocol, ServerFacts, Session
from toolkit.errors import MissingError, ServerError, UnknownName
from toolkit.specs import LoadProfile

SERVICE = "/inference.GRPCInferenceService/"
#: In front of a string on the wire.
LENGTH_BYTES = 4


class GrpcSession:
    """One channel; requests are built once and filled in, responses are read as raw tensors."""

    def __init__(self, channel: http2.Channel, profile: LoadProfile, described: Any, server: Any) -> None:
        from tritonclient.grpc import service_pb2

        self._channel = channel
        self._messages = service_pb2
        self._profile = profile
        self._layout = tensors.layout_of(
            profile.model,
            [tensors.Tensor(name=i.name, datatype=i.datatype, dims=len(i.shape)) for i in described.inputs],
            [output.name for output in described.outputs],
        )
        self._is_unary = False
        self.facts = ServerFacts(
            name=server.name,
            version=server.version,
            model=profile.model,
            model_version=max(described.versions, default=""),
            platform=described.platform,
            has_output_count=tensors.OUTPUT_COUNT in self._layout.outputs,
            has_input_count=tensors.INPUT_COUNT in self._layout.outputs,
            has_eos_control=self._layout.has_eos_control,
        )

    async def choose_call(self) -> None:
        """Use ModelInfer where nothing streams, except for decoupled models: Triton serves those by stream only."""
        if not self._profile.is_streaming:
            asked = self._messages.ModelConfigRequest(name=self._profile.model)
            answer = await unary(self._channel, "ModelConfig", asked, self._messages.ModelConfigResponse)
            self._is_unary = not answer.config.model_transaction_policy.decoupled

    def request(self, ask: Ask) -> bytes:
        """Return one request, ready for the wire."""
        made = self._messages.ModelInferRequest(model_name=self._profile.model, id=ask.request_id)
        made.parameters["triton_enable_empty_final_response"].bool_param = True
        values = self._layout.values(self._profile, max_tokens=ask.max_tokens, seed=ask.seed)
        for tensor in self._layout.inputs.values():
            is_prompt = tensor.datatype == "BYTES"
            if is_prompt or tensor.name in values:
                made.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=[1] * tensor.dims)
                made.raw_input_contents.append(
                    tensors.packed_text(ask.whole_prompt) if is_prompt else tensors.packed(tensor, values[tensor.name])
                )
        for name in self._layout.outputs:
            made.outputs.add(name=name)
        return bytes(made.SerializeToString())

    async def send(self, ask: Ask, answer: Answer) -> None:
        """Send one request and feed its responses into ANSWER."""
        request = self.request(ask)
        method = "ModelInfer" if self._is_unary else "ModelStreamInfer"
        receive = self._one_into(answer) if self._is_unary else self._stream_into(answer)
        answer.sent = time.perf_counter()
        await self._channel.call(SERVICE + method, request, receive)
        if answer.end is None:
            raise SendFailed("bad_response", "The stream ended without a final response.")

    def _one_into(self, answer: Answer) -> http2.Receive:
        parse = self._messages.ModelInferResponse.FromString

        def receive(message: bytes, now: float) -> None:
            take(parse(message), now, answer)
            answer.end = now

        return receive

    def _stream_into(self, answer: Answer) -> http2.Receive:
        parse = self._messages.ModelStreamInferResponse.FromString

        def receive(message: bytes, now: float) -> None:
            response = parse(message)
            if response.error_message:
                raise SendFailed("server_error", response.error_message)
            if take(response.infer_response, now, answer):
                answer.end = now

        return receive

    async def statistics(self) -> dict[str, ModelCounts] | None:
        """Return the server's counts by model."""
        asked, kind = self._messages.ModelStatisticsRequest(), self._messages.ModelStatisticsResponse
        try:
            answer = await unary(self._channel, "ModelStatistics", asked, kind)
        except SendFailed:
            return None
        return {model.name: counts_of(model) for model in answer.model_stats}

    async def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def take(response: Any, now: float, answer: Answer) -> bool:
    """Read one response's raw tensors into ANSWER; return whether it is the last."""
    raw = response.raw_output_contents
    has_text, count = False, None
    for index, output in enumerate(response.outputs):
        name = output.name
        if name == "text_output":
            has_text = len(raw[index]) > LENGTH_BYTES
            if answer.pieces is not None:
                answer.pieces.append(raw[index][LENGTH_BYTES:])
        elif name == "num_output_tokens":
            count = int.from_bytes(raw[index][:4], "little")
        elif name == "num_input_tokens":
            answer.input_tokens = int.from_bytes(raw[index][:4], "little")
    if raw:
        answer.add(now, has_text=has_text, count=count)
    return bool(response.parameters["triton_final_response"].bool_param)


def counts_of(model: Any) -> ModelCounts:
    """Return one model's statistics; Triton counts nanoseconds."""
    stats = model.inference_stats
    return ModelCounts(
        requests=stats.success.count + stats.fail.count,
        failures=stats.fail.count,
        executions=model.execution_count,
        queue_s=stats.queue.ns / 1e9,
        compute_input_s=stats.compute_input.ns / 1e9,
        compute_infer_s=stats.compute_infer.ns / 1e9,
        compute_output_s=stats.compute_output.ns / 1e9,
    )


async def unary(channel: http2.Channel, method: str, request: Any, kind: Any) -> Any:
    """Make one unary call."""
    return kind.FromString(await channel.unary(SERVICE + method, request.SerializeToString()))


async def connect(profile: LoadProfile) -> Session:
    """Connect and read the model's tensors."""
    if not (find_spec("tritonclient") and find_spec("grpc") and find_spec("hpack")):
        raise MissingError(
            f"{profile.url} needs tritonclient and hpack, which are not installed.",
            hint="pip install 'tritonclient[grpc]' hpack, or load-test http:// instead.",
        )
    from tritonclient.grpc import service_pb2 as messages

    channel = http2.Channel(profile.url)
    try:
        server = await unary(
            channel, "ServerMetadata", messages.ServerMetadataRequest(), messages.ServerMetadataResponse
        )
        session = GrpcSession(channel, profile, await described(channel, profile.model), server)
        await session.choose_call()
    except SendFailed as error:
        channel.close()
        raise ServerError(
            f"No Triton server answers at {profile.url}: {error}",
            hint="See `trtk status`; start one with `trtk serve ENGINE --detach`.",
        ) from error
    except (ServerError, UnknownName):
        channel.close()
        raise
    return session


async def described(channel: http2.Channel, model: str) -> Any:
    """Return a model's metadata; raises UnknownName with those that the server has."""
    from tritonclient.grpc import service_pb2 as messages

    try:
        asked = messages.ModelMetadataRequest(name=model)
        return await unary(channel, "ModelMetadata", asked, messages.ModelMetadataResponse)
    except SendFailed as error:
        if error.kind != "server_error":
            raise
        # The index of the repository is for those who may load models; statistics are for everybody.
        asked_all, kind = messages.ModelStatisticsRequest(), messages.ModelStatisticsResponse
        models = (await unary(channel, "ModelStatistics", asked_all, kind)).model_stats
        raise UnknownName("model on the server", model, {one.name for one in models}) from error


PROTOCOL = Protocol(
    name="triton-grpc", title="Triton gRPC (ModelStreamInfer)", schemes=("grpc", "grpcs"), connect=connect
)
