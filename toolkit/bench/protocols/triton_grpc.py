"""Triton's gRPC: one ModelStreamInfer stream per request, or ModelInfer where nothing streams."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from toolkit.bench import tensors
from toolkit.bench.answer import Answer, SendFailed
from toolkit.bench.session import Ask, ModelCounts, Protocol, ServerFacts, Session
from toolkit.errors import MissingError, ServerError, UnknownName
from toolkit.specs import LoadProfile

SERVICE = "/inference.GRPCInferenceService/"
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
CONNECT_TIMEOUT_S = 10.0
#: In front of a string on the wire.
LENGTH_BYTES = 4

#: What gRPC's core says when the network, not the server, ended a call.
REFUSED = ("Connection refused", "failed to connect", "Failed to connect", "DNS resolution failed")
BROKEN = ("Socket closed", "Connection reset", "recvmsg", "GOAWAY", "Stream removed", "Broken pipe", "RST_STREAM")


class GrpcSession:
    """One channel; requests are built once and filled in, responses are read as raw tensors."""

    def __init__(self, channel: Any, profile: LoadProfile, described: Any, server: Any) -> None:
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
        self._stream = channel.stream_stream(
            SERVICE + "ModelStreamInfer",
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        self._infer = channel.unary_unary(
            SERVICE + "ModelInfer", response_deserializer=service_pb2.ModelInferResponse.FromString
        )
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
            answer = await call(self._channel, "ModelConfig", asked, self._messages.ModelConfigResponse)
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
                    tensors.packed_text(ask.prompt) if is_prompt else tensors.packed(tensor, values[tensor.name])
                )
        for name in self._layout.outputs:
            made.outputs.add(name=name)
        return bytes(made.SerializeToString())

    async def send(self, ask: Ask, answer: Answer) -> None:
        """Send one request and feed its responses into ANSWER."""
        import grpc

        request = self.request(ask)
        answer.sent = time.perf_counter()
        try:
            if self._is_unary:
                response = await self._infer(request)
                answer.end = time.perf_counter()
                take(response, answer.end, answer)
            else:
                await self._follow(request, answer)
        except grpc.aio.AioRpcError as error:
            raise SendFailed(kind_of(error), error.details() or error.code().name) from error

    async def _follow(self, request: bytes, answer: Answer) -> None:
        import grpc

        end_of_stream, clock, read_from = grpc.aio.EOF, time.perf_counter, self._stream()
        try:
            await read_from.write(request)
            await read_from.done_writing()
            while (message := await read_from.read()) is not end_of_stream:
                now = clock()
                if message.error_message:
                    raise SendFailed("server_error", message.error_message)
                if take(message.infer_response, now, answer):
                    answer.end = now
        finally:
            read_from.cancel()
        if answer.end is None:
            raise SendFailed("bad_response", "The stream ended without a final response.")

    async def statistics(self) -> dict[str, ModelCounts] | None:
        """Return the server's counts by model."""
        import grpc

        asked, kind = self._messages.ModelStatisticsRequest(), self._messages.ModelStatisticsResponse
        try:
            answer = await call(self._channel, "ModelStatistics", asked, kind)
        except grpc.aio.AioRpcError:
            return None
        return {model.name: counts_of(model) for model in answer.model_stats}

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def take(response: Any, now: float, answer: Answer) -> bool:
    """Read one response's raw tensors into ANSWER; return whether it is the last."""
    raw = response.raw_output_contents
    has_text, count = False, None
    for index, output in enumerate(response.outputs):
        name = output.name
        if name == "text_output":
            has_text = len(raw[index]) > LENGTH_BYTES
        elif name == "num_output_tokens":
            count = int.from_bytes(raw[index][:4], "little")
        elif name == "num_input_tokens":
            answer.input_tokens = int.from_bytes(raw[index][:4], "little")
    if raw:
        answer.add(now, has_text=has_text, count=count)
    return bool(response.parameters["triton_final_response"].bool_param)


def kind_of(error: Any) -> str:
    """Name a failed call for the count of errors."""
    import grpc

    details = error.details() or ""
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return "timeout"
    if any(text in details for text in REFUSED):
        return "connection_refused"
    return "stream_broken" if any(text in details for text in BROKEN) else "server_error"


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


async def call(channel: Any, method: str, request: Any, kind: Any) -> Any:
    """Make one unary call."""
    made = channel.unary_unary(SERVICE + method, response_deserializer=kind.FromString)
    return await made(request.SerializeToString(), timeout=CONNECT_TIMEOUT_S)


async def connect(profile: LoadProfile) -> Session:
    """Open a channel and read the model's tensors."""
    if not (find_spec("grpc") and find_spec("tritonclient")):
        raise MissingError(
            f"{profile.url} needs tritonclient and grpcio, which are not installed.",
            hint="pip install 'tritonclient[grpc]', or load-test http:// instead.",
        )
    import grpc
    from tritonclient.grpc import service_pb2

    url = urlsplit(profile.url)
    target = f"{url.hostname}:{url.port or 8001}"
    secure = url.scheme == "grpcs"
    channel = (
        grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=OPTIONS)
        if secure
        else grpc.aio.insecure_channel(target, options=OPTIONS)
    )
    try:
        server = await call(
            channel, "ServerMetadata", service_pb2.ServerMetadataRequest(), service_pb2.ServerMetadataResponse
        )
        described = await _described(channel, profile.model)
        session = GrpcSession(channel, profile, described, server)
        await session.choose_call()
    except grpc.aio.AioRpcError as error:
        await channel.close()
        raise ServerError(
            f"No Triton server answers at {profile.url}: {error.details() or error.code().name}.",
            hint="See `trtk status`; start one with `trtk serve ENGINE --detach`.",
        ) from error
    except (ServerError, UnknownName):
        await channel.close()
        raise
    return session


async def _described(channel: Any, model: str) -> Any:
    import grpc
    from tritonclient.grpc import service_pb2

    try:
        asked = service_pb2.ModelMetadataRequest(name=model)
        return await call(channel, "ModelMetadata", asked, service_pb2.ModelMetadataResponse)
    except grpc.aio.AioRpcError as error:
        if kind_of(error) != "server_error":
            raise
        index = await call(
            channel, "RepositoryIndex", service_pb2.RepositoryIndexRequest(), service_pb2.RepositoryIndexResponse
        )
        raise UnknownName("model on the server", model, [entry.name for entry in index.models]) from error


PROTOCOL = Protocol(
    name="triton-grpc", title="Triton gRPC (ModelStreamInfer)", schemes=("grpc", "grpcs"), connect=connect
)
