"""Asking over Triton's gRPC: one ModelStreamInfer stream, which a cancelled question resets."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from toolkit.bench import http2
from toolkit.bench.answer import SendFailed
from toolkit.bench.protocols.triton_grpc import SERVICE, described
from toolkit.bench.tensors import INPUT_COUNT, OUTPUT_COUNT, TEXT, Tensor
from toolkit.errors import MissingError
from toolkit.talk import fields
from toolkit.talk.question import Hearing, Question


async def ask(url: str, question: Question, hearing: Hearing) -> None:
    """Ask and listen until the answer's end."""
    if not (find_spec("tritonclient") and find_spec("grpc") and find_spec("hpack")):
        raise MissingError(
            f"{url} needs tritonclient and hpack, which are not installed.",
            hint="pip install 'tritonclient[grpc]' hpack, or use the server's http:// URL.",
        )
    channel = http2.Channel(url)
    try:
        message = await _message(channel, question)
        hearing.sent()
        await channel.call(f"{SERVICE}ModelStreamInfer", message, _into(hearing))
        if hearing.answer.end is None:
            raise SendFailed("bad_response", "The stream ended without a final response.")
    finally:
        channel.close()


async def _message(channel: http2.Channel, question: Question) -> bytes:
    from tritonclient.grpc import service_pb2

    model = await described(channel, question.model)
    tensors = {one.name: Tensor(name=one.name, datatype=one.datatype, dims=len(one.shape)) for one in model.inputs}
    made = service_pb2.ModelInferRequest(model_name=question.model, id=question.request_id)
    made.parameters["triton_enable_empty_final_response"].bool_param = True
    for name, value in fields.values(question, list(tensors)).items():
        tensor = tensors[name]
        made.inputs.add(name=name, datatype=tensor.datatype, shape=fields.shape(tensor, value))
        made.raw_input_contents.append(fields.raw(tensor, value))
    for name in fields.outputs([one.name for one in model.outputs], question.model):
        made.outputs.add(name=name)
    return bytes(made.SerializeToString())


def _into(hearing: Hearing) -> http2.Receive:
    from tritonclient.grpc import service_pb2

    def receive(message: bytes, now: float) -> None:
        response = service_pb2.ModelStreamInferResponse.FromString(message)
        if response.error_message:
            raise SendFailed("server_error", response.error_message)
        take(response.infer_response, now, hearing)

    return receive


def take(response: Any, now: float, hearing: Hearing) -> None:
    """Read one response."""
    raw = {output.name: response.raw_output_contents[index] for index, output in enumerate(response.outputs)}
    if INPUT_COUNT in raw:
        hearing.answer.input_tokens = int.from_bytes(raw[INPUT_COUNT][:4], "little")
    if reason := fields.unpacked_text(raw.get(fields.FINISH_REASON, b"")):
        hearing.finish_reason = reason
    if raw:
        count = int.from_bytes(raw[OUTPUT_COUNT][:4], "little") if OUTPUT_COUNT in raw else None
        hearing.add(fields.unpacked_text(raw.get(TEXT, b"")), now=now, count=count)
    if response.parameters["triton_final_response"].bool_param:
        hearing.answer.end = now
