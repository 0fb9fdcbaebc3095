"""A Triton of a few lines, over real gRPC: what its models say is in the prompt, and what it was asked is kept.

The prompt is JSON: {"say": ["Hel", "lo"], "delay_s": 0.0, "finish": "stop", "fail": ["INVALID_ARGUMENT", "words"]}.
"""

import asyncio
import json
import struct

import grpc
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as services

INPUTS = {
    "text_input": "BYTES",
    "messages": "BYTES",
    "stop_words": "BYTES",
    "guided_decoding_guide_type": "BYTES",
    "guided_decoding_guide": "BYTES",
    "max_tokens": "INT32",
    "min_tokens": "INT32",
    "top_k": "INT32",
    "end_id": "INT32",
    "seed": "UINT64",
    **dict.fromkeys(("temperature", "top_p", "presence_penalty", "frequency_penalty", "repetition_penalty"), "FP32"),
    **dict.fromkeys(
        (
            "stream",
            "exclude_input_in_output",
            "return_num_input_tokens",
            "return_num_output_tokens",
            "return_log_probs",
        ),
        "BOOL",
    ),
}
OUTPUTS = {
    "text_output": "BYTES",
    "num_input_tokens": "INT32",
    "num_output_tokens": "INT32",
    "finish_reason": "BYTES",
    "output_log_probs": "FP32",
}
UNPACKED = {"INT32": "<i", "UINT64": "<Q", "FP32": "<f", "BOOL": "<?"}


def read(datatype, raw):
    """Return a tensor's values."""
    if datatype != "BYTES":
        return [value for (value,) in struct.iter_unpack(UNPACKED[datatype], raw)]
    texts = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        texts.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return texts


def packed(text):
    raw = text.encode()
    return len(raw).to_bytes(4, "little") + raw


class StandIn(services.GRPCInferenceServiceServicer):
    """Keeps what it was asked: `asked` has each request's inputs, `left` the ids of those that were cancelled."""

    def __init__(self):
        self.asked, self.ids, self.parameters, self.left, self.running = [], [], [], [], 0
        self.is_ready = True
        # NVIDIA's own backend gives no reason, and counts the tokens of each message.
        nvidia = {name: datatype for name, datatype in OUTPUTS.items() if name != "finish_reason"}
        self.models = {"ensemble": OUTPUTS, "nvidia": nvidia, "plain": {"text_output": "BYTES"}}

    async def ServerReady(self, _request, _context):
        return messages.ServerReadyResponse(ready=self.is_ready)

    async def ModelMetadata(self, request, context):
        if request.name not in self.models:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        answer = messages.ModelMetadataResponse(name=request.name)
        names = {"text_input": "BYTES", "max_tokens": "INT32"} if request.name == "plain" else INPUTS
        for name, datatype in names.items():
            answer.inputs.add(name=name, datatype=datatype, shape=[-1, 1])
        for name, datatype in self.models[request.name].items():
            answer.outputs.add(name=name, datatype=datatype, shape=[-1, 1])
        return answer

    async def ModelStreamInfer(self, request_iterator, context):
        request = await anext(aiter(request_iterator))
        inputs = {
            tensor.name: read(tensor.datatype, raw)
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        self.asked.append(inputs)
        self.ids.append(request.id)
        self.parameters.append(request.parameters)
        self.running += 1
        try:
            async for message in self.answer(inputs, context, has_totals=request.model_name != "nvidia"):
                yield message
        except asyncio.CancelledError:
            self.left.append(request.id)
            raise
        finally:
            self.running -= 1

    async def answer(self, inputs, context, *, has_totals):
        script = script_of(inputs)
        for count, piece in enumerate(script.get("say", []), start=1):
            await asyncio.sleep(script.get("delay_s", 0.0))
            made = self.message(piece, count if has_totals else 1, script.get("finish", ""))
            if inputs.get("return_log_probs") == [True]:
                raw = b"".join(struct.pack("<f", one) for one in script["log_probs"][count - 1])
                made.infer_response.outputs.add(name="output_log_probs", datatype="FP32", shape=[1, 1, len(raw) // 4])
                made.infer_response.raw_output_contents.append(raw)
            yield made
        if "abort" in script:
            code, words = script["abort"]
            await context.abort(grpc.StatusCode[code], words)
        if "fail" in script:  # as Triton says it: without a code, and without an end
            yield messages.ModelStreamInferResponse(error_message=script["fail"])
            return
        yield final()

    def message(self, piece, count, finish):
        made = messages.ModelStreamInferResponse()
        made.infer_response.parameters["triton_final_response"].bool_param = False
        values = {
            "text_output": packed(piece),
            "num_input_tokens": struct.pack("<i", 7),
            "num_output_tokens": struct.pack("<i", count),
            "finish_reason": packed(finish),
        }
        for name, raw in values.items():
            made.infer_response.outputs.add(name=name, datatype=OUTPUTS[name], shape=[1, 1])
            made.infer_response.raw_output_contents.append(raw)
        return made


def final():
    made = messages.ModelStreamInferResponse()
    made.infer_response.parameters["triton_final_response"].bool_param = True
    return made


def script_of(inputs):
    given = inputs.get("messages", [""])[0]
    return json.loads(json.loads(given)[-1]["content"] if given else inputs["text_input"][0])


async def served(stand_in):
    """Start it on a free port; return the server and its address."""
    server = grpc.aio.server()
    services.add_GRPCInferenceServiceServicer_to_server(stand_in, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"
