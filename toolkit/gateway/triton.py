"""Triton over gRPC: one stream for each request, so that cancelling one cancels one."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.gateway import refusals, statuses
from toolkit.gateway.refusals import Refusal

SERVICE = "/inference.GRPCInferenceService"
QUESTION_TIMEOUT_S = 5.0
TEXT = "text_output"
COUNTS = ("num_input_tokens", "num_output_tokens")
FINISH_REASON = "finish_reason"
WANTS_LOG_PROBS, LOG_PROBS = "return_log_probs", "output_log_probs"
PACKED = {"BOOL": "<?", "INT32": "<i", "INT64": "<q", "UINT32": "<I", "UINT64": "<Q", "FP32": "<f"}
LENGTH_BYTES = 4
Value = str | bool | int | float | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Described:
    """A model's tensors, as it describes them itself."""

    name: str
    inputs: Mapping[str, tuple[str, int]]  # name -> (datatype, dimensions)
    outputs: tuple[str, ...]  # of those that the gateway reads
    has_log_probs: bool = False  # of the tokens of each message, in their order

    @property
    def has_running_totals(self) -> bool:
        """Whether a message counts all tokens so far, as our engines do, or NVIDIA's way those in it alone."""
        return FINISH_REASON in self.outputs


@dataclass(slots=True)
class Piece:
    """One message of an answer."""

    text: bytes = b""
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str = ""
    log_probs: tuple[float, ...] = ()


class Triton:
    """One channel to one server."""

    def __init__(self, address: str) -> None:
        import grpc
        from tritonclient.grpc import service_pb2 as messages

        self._messages = messages
        # A proxy of the environment must not see what goes to loopback, and one connection carries every request.
        options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", -1),
            # A Triton that was started again is found at once, not after gRPC's two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._stream = self._channel.unary_stream(
            f"{SERVICE}/ModelStreamInfer",
            request_serializer=None,
            response_deserializer=messages.ModelStreamInferResponse.FromString,
        )
        self._described: dict[str, Described] = {}

    async def is_ready(self) -> bool:
        """Whether the server says that it is."""
        kinds = self._messages
        with contextlib.suppress(Refusal):
            answer = await self._unary("ServerReady", kinds.ServerReadyRequest(), kinds.ServerReadyResponse)
            return bool(answer.ready)
        return False

    async def describe(self, model: str) -> Described:
        """Return a model's tensors; asked once."""
        if model not in self._described:
            kinds = self._messages
            asked = kinds.ModelMetadataRequest(name=model)
            self._described[model] = _described(
                model, await self._unary("ModelMetadata", asked, kinds.ModelMetadataResponse)
            )
        return self._described[model]

    async def _unary(self, method: str, request: Any, kind: Any) -> Any:
        import grpc

        call = self._channel.unary_unary(
            f"{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=kind.FromString,
        )
        try:
            return await call(request, timeout=QUESTION_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise statuses.of_status(error) from error

    def request(self, model: Described, values: Mapping[str, Value], request_id: str) -> bytes:
        """Return the bytes of a request; what the model has no input for is refused by `values`' maker."""
        made = self._messages.ModelInferRequest(model_name=model.name, id=request_id)
        for name, value in values.items():
            datatype, dimensions = model.inputs[name]
            items = [value] if isinstance(value, (str, bool, int, float)) else list(value)
            shape = [*[1] * (dimensions - 1), len(items)]
            made.inputs.add(name=name, datatype=datatype, shape=shape)
            made.raw_input_contents.append(b"".join(_packed(datatype, item) for item in items))
        for name in (*model.outputs, *([LOG_PROBS] if values.get(WANTS_LOG_PROBS) else [])):
            made.outputs.add(name=name)
        # Without it a stream whose last message is empty never says that it is over.
        made.parameters["triton_enable_empty_final_response"].bool_param = True
        made.parameters[statuses.NAMES_CODE].bool_param = True
        serialized: bytes = made.SerializeToString()
        return serialized

    async def pieces(self, request: bytes) -> AsyncGenerator[Piece, None]:
        """Yield an answer's messages; leaving early cancels the request."""
        import grpc

        call = self._stream(request)
        is_whole, refused = False, None
        try:
            # Read on to the stream's end, after an error too: one that is cancelled on its last message keeps its model
            # in Triton 2.51 from ever being unloaded.
            async for message in call:
                if message.error_message:
                    refused = refused or statuses.of_message(message.error_message)
                    continue
                response = message.infer_response
                if response.raw_output_contents:
                    yield _piece(response)
                is_whole = is_whole or response.parameters["triton_final_response"].bool_param
            if refused:
                raise refused
            if not is_whole:
                raise Refusal(refusals.UNAVAILABLE, "The model's answer broke off.")
        except grpc.aio.AioRpcError as error:
            raise statuses.of_status(error) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the channel; what runs is cancelled."""
        await self._channel.close(None)


def _described(model: str, metadata: Any) -> Described:
    names = {tensor.name for tensor in metadata.outputs}
    return Described(
        name=model,
        inputs={tensor.name: (tensor.datatype, len(tensor.shape)) for tensor in metadata.inputs},
        outputs=tuple(name for name in (TEXT, *COUNTS, FINISH_REASON) if name in names),
        # NVIDIA's backend has the tensor as well, but what its messages hold of it while it streams is not known here.
        has_log_probs={LOG_PROBS, FINISH_REASON} <= names,
    )


def _packed(datatype: str, value: Any) -> bytes:
    if datatype == "BYTES":
        raw: bytes = value.encode()
        return len(raw).to_bytes(LENGTH_BYTES, "little") + raw
    return struct.pack(PACKED[datatype], value)


def _piece(response: Any) -> Piece:
    piece, raw = Piece(), response.raw_output_contents
    for index, output in enumerate(response.outputs):
        name, content = output.name, raw[index]
        if name == TEXT:
            piece.text = _first_text(content)
        elif name == COUNTS[1]:
            piece.output_tokens = int.from_bytes(content[:4], "little")
        elif name == COUNTS[0]:
            piece.input_tokens = int.from_bytes(content[:4], "little")
        elif name == FINISH_REASON:
            piece.finish_reason = _first_text(content).decode(errors="replace")
        elif name == LOG_PROBS:
            piece.log_probs = struct.unpack(f"<{len(content) // 4}f", content)
    return piece


def _first_text(content: bytes) -> bytes:
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    return content[LENGTH_BYTES : LENGTH_BYTES + length]
