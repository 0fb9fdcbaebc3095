"""A scripted Triton: real gRPC and HTTP on free ports, answers by a timetable, and a log of what it really did.

Run as a program: `mock_triton.py '{"ttft_s": 0.05}' LOG` prints its two ports as JSON and serves until killed.
Times in the log are readings of the machine's monotonic clock, the one that the load tester reads too.
"""

# ruff: noqa: ARG002, T201 - the service's signatures, and a program that prints its ports

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

INPUTS = {
    "text_input": "BYTES",
    "max_tokens": "INT32",
    "min_tokens": "INT32",
    "stream": "BOOL",
    "top_k": "INT32",
    "seed": "UINT64",
    "return_num_output_tokens": "BOOL",
    "return_num_input_tokens": "BOOL",
}
OUTPUTS = {"text_output": "BYTES", "num_output_tokens": "INT32", "num_input_tokens": "INT32"}

#: Requests differ in so many steps, so that percentiles differ from each other.
STEPS = 10


@dataclass
class Script:
    ttft_s: float = 0.0
    gap_s: float = 0.0
    spread: float = 0.0  # stretches both, by up to so much, from one request to the next
    tokens_per_chunk: int = 1
    tokens: int = 0  # 0: as many as asked for
    counts: str = "cumulative"  # each, none
    leading_empty_chunks: int = 0  # half a character: tokens without text yet
    fail_every: int = 0  # an error after two chunks
    die_at_request: int = 0
    reset_every: int = 0  # HTTP: the connection is cut after two chunks
    capacity: int = 0  # so many requests are worked on at a time, the others wait; 0: all
    slow_above: int = 0  # with more requests than that at once, each takes four times as long to begin
    stall_at_s: float = 0.0  # after the first request: for stall_s seconds nothing is answered
    stall_s: float = 0.0
    is_never_final: bool = False
    is_malformed: bool = False
    is_decoupled: bool = True
    #: OpenAI: what it understands beyond what all do; anything else is refused with 400.
    knows: tuple[str, ...] = ("include_usage", "continuous_usage_stats", "ignore_eos", "min_tokens")
    status: int = 200  # OpenAI: of every answer but the first few
    is_done_said: bool = True
    added_tokens: int = -1  # input tokens are words and so many; -1: seven, whatever is asked
    is_asked_logged: bool = False
    counted_more: int = 0  # /metrics: output tokens that each answer did not have


class Mock:
    def __init__(self, script: Script, log: Path) -> None:
        self.script = script
        self.log = log.open("a", buffering=1)
        self.requests = 0
        self.first_start = None
        self.at_once = 0
        self.tokens = self.answered = 0
        self.room = asyncio.Semaphore(script.capacity or 1_000_000)

    def unstalled(self, planned: float) -> float:
        """Return when something planned happens: at the end of the stall, if it falls into it."""
        begin = self.first_start + self.script.stall_at_s
        return max(planned, begin + self.script.stall_s) if begin <= planned < begin + self.script.stall_s else planned

    def is_reset(self, script: Script) -> bool:
        return bool(script.reset_every) and self.requests % script.reset_every == 0

    def input_tokens(self, said) -> int:
        if self.script.added_tokens < 0:
            return 7
        texts = [said] if isinstance(said, str) else [message["content"] for message in said]
        return sum(len(text.split()) for text in texts) + self.script.added_tokens

    def exposition(self) -> str:
        places = self.script.capacity or 1000
        active = min(self.at_once, places)
        gauges = {"active": active, "waiting": self.at_once - active, "max": places}
        rows = ["# TYPE nv_trt_llm_request_metrics gauge"]
        rows += [f'nv_trt_llm_request_metrics{{model="e",request_type="{k}"}} {v}' for k, v in gauges.items()]
        rows += ["# TYPE nv_trt_llm_kv_cache_block_metrics gauge"]
        rows += [f'nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="fraction",model="e"}} {active / places / 2}']
        rows += ["# TYPE nv_llm_output_token_len histogram", f'nv_llm_output_token_len_sum{{model="e"}} {self.tokens}']
        rows += [f'nv_llm_output_token_len_count{{model="e"}} {self.answered}']
        rows += [f'nv_llm_output_token_len_bucket{{model="e",le="+Inf"}} {self.answered}']
        return "\n".join(rows) + "\n"

    async def answer(self, request_id: str, asked: int, said):
        """Yield (text, running or own count, whether it is the last) by the timetable, and log the clock."""
        self.at_once += 1
        try:
            async with self.room:
                async for piece in self.worked_on(request_id, asked, said):
                    yield piece
        finally:
            self.at_once -= 1

    async def worked_on(self, request_id: str, asked: int, said):
        script = self.script
        self.requests += 1
        number, start = self.requests, time.perf_counter()
        self.first_start = self.first_start or start
        total, done, times = script.tokens or asked, 0, []
        stretch = 1 + script.spread * (number % STEPS) / STEPS
        ttft_s = script.ttft_s * (4 if 0 < script.slow_above < self.at_once else 1)
        for index in range(script.leading_empty_chunks + total):
            pause = self.unstalled(start + (ttft_s + index * script.gap_s) * stretch) - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            if number == script.die_at_request and index == 2:
                os._exit(1)
            if script.fail_every and number % script.fail_every == 0 and index == 2:
                raise RuntimeError("CUDA out of memory")
            is_empty = index < script.leading_empty_chunks
            new = 1 if is_empty else min(script.tokens_per_chunk, total - done)
            done = min(done + new, total)
            times.append(time.perf_counter())
            yield "" if is_empty else "word " * new, done if script.counts == "cumulative" else new, done >= total
            if done >= total:
                break
        self.tokens, self.answered = self.tokens + done + self.script.counted_more, self.answered + 1
        row = {"id": request_id, "start": start, "times": times, "tokens": done}
        self.log.write(json.dumps(row | ({"asked": said} if script.is_asked_logged else {})) + "\n")


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, mock: Mock) -> None:
        self.mock = mock

    async def ServerMetadata(self, request, context):
        return service_pb2.ServerMetadataResponse(name="triton", version="mock")

    async def ModelMetadata(self, request, context):
        if request.name != "ensemble":
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        made = service_pb2.ModelMetadataResponse(name="ensemble", versions=["1"], platform="ensemble")
        for name, datatype in INPUTS.items():
            made.inputs.add(name=name, datatype=datatype, shape=[-1, 1])
        for name, datatype in OUTPUTS.items():
            if self.mock.script.counts != "none" or name == "text_output":
                made.outputs.add(name=name, datatype=datatype, shape=[-1, 1])
        return made

    async def ModelConfig(self, request, context):
        made = service_pb2.ModelConfigResponse()
        made.config.model_transaction_policy.decoupled = self.mock.script.is_decoupled
        return made

    async def RepositoryIndex(self, request, context):
        made = service_pb2.RepositoryIndexResponse()
        made.models.add(name="ensemble")
        return made

    async def ModelStatistics(self, request, context):
        made = service_pb2.ModelStatisticsResponse()
        stats = made.model_stats.add(name="ensemble", version="1", execution_count=self.mock.requests)
        stats.inference_stats.success.count = self.mock.requests
        stats.inference_stats.queue.ns = self.mock.requests * 1_000_000
        return made

    def response(self, request, text, count, is_final):
        made = service_pb2.ModelInferResponse(model_name="ensemble", id=request.id)
        made.parameters["triton_final_response"].bool_param = is_final
        raw = text.encode()
        values = {
            "text_output": len(raw).to_bytes(4, "little") + raw,
            "num_output_tokens": count.to_bytes(4, "little"),
            "num_input_tokens": self.mock.input_tokens(text_of(request)).to_bytes(4, "little"),
        }
        for output in request.outputs:
            made.outputs.add(name=output.name, datatype=OUTPUTS[output.name], shape=[1, 1])
            made.raw_output_contents.append(values[output.name])
        return made

    async def ModelStreamInfer(self, requests, context):
        async for request in requests:
            try:
                async for text, count, _ in self.mock.answer(request.id, asked_of(request), text_of(request)):
                    yield service_pb2.ModelStreamInferResponse(
                        infer_response=self.response(request, text, count, False)
                    )
            except RuntimeError as error:
                yield service_pb2.ModelStreamInferResponse(error_message=str(error))
                return
            if self.mock.script.is_never_final:
                await asyncio.sleep(3600)
            final = service_pb2.ModelInferResponse(model_name="ensemble", id=request.id)
            final.parameters["triton_final_response"].bool_param = True
            yield service_pb2.ModelStreamInferResponse(infer_response=final)

    async def ModelInfer(self, request, context):
        pieces = [piece async for piece in self.mock.answer(request.id, asked_of(request), text_of(request))]
        return self.response(request, "".join(text for text, _, _ in pieces), pieces[-1][1], True)


def asked_of(request) -> int:
    index = [tensor.name for tensor in request.inputs].index("max_tokens")
    return int.from_bytes(request.raw_input_contents[index], "little")


def text_of(request) -> str:
    index = [tensor.name for tensor in request.inputs].index("text_input")
    return request.raw_input_contents[index][4:].decode()


def tokens_of(request) -> int:
    return request.get("max_tokens") or request["max_completion_tokens"]


class Http:
    def __init__(self, mock: Mock) -> None:
        self.mock = mock

    async def serve(self, reader, writer) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                sizes = [int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length")]
                body = await reader.readexactly(sizes[0]) if sizes else b""
                path = lines[0].split()[1]
                if path.endswith("/completions"):
                    ids = [line.split(": ")[1] for line in lines if line.lower().startswith("x-request-id")]
                    await self.completion(writer, json.loads(body), *ids, is_chat="chat" in path)
                elif path.endswith("/generate_stream"):
                    await self.stream(writer, json.loads(body))
                else:
                    await self.plain(writer, path, json.loads(body or b"{}"))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def plain(self, writer, path, request) -> None:
        status, document = 200, {}
        if path == "/v1/models":
            document = {"data": [{"id": "mock"}, {"id": "another"}]}
        elif path == "/metrics":
            await self.text(writer, self.mock.exposition())
            return
        elif path == "/v2":
            document = {"name": "triton", "version": "mock"}
        elif path == "/v2/models/ensemble":
            document = {
                "name": "ensemble",
                "versions": ["1"],
                "platform": "ensemble",
                "inputs": [{"name": n, "datatype": d, "shape": [-1, 1]} for n, d in INPUTS.items()],
                "outputs": [{"name": n, "datatype": d, "shape": [-1, 1]} for n, d in OUTPUTS.items()],
            }
        elif path == "/v2/repository/index":
            document = [{"name": "ensemble"}]
        elif path == "/v2/models/stats":
            counts = {"success": {"count": self.mock.requests}, "queue": {"ns": self.mock.requests * 1_000_000}}
            stats = {"name": "ensemble", "execution_count": self.mock.requests, "inference_stats": counts}
            document = {"model_stats": [stats]}
        elif path.endswith("/generate"):
            said = request["text_input"]
            pieces = [piece async for piece in self.mock.answer(request["id"], request["max_tokens"], said)]
            text, count = "".join(text for text, _, _ in pieces), self.mock.input_tokens(said)
            document = {"text_output": text, "num_output_tokens": pieces[-1][1], "num_input_tokens": count}
        else:
            status, document = 400, {"error": f"Request for unknown model: '{path}' is not found"}
        await self.document(writer, status, document)

    async def text(self, writer, text) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
        await writer.drain()

    async def document(self, writer, status, document) -> None:
        body = json.dumps(document).encode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    async def completion(self, writer, request, request_id="probe", *, is_chat) -> None:
        script, asked = self.mock.script, tokens_of(request)
        options = request.get("stream_options", {})
        unknown = ({"ignore_eos", "min_tokens"} & request.keys() | options.keys()) - set(script.knows)
        if unknown or (script.status != 200 and request_id != "probe"):
            status = 400 if unknown else script.status
            await self.document(writer, status, {"error": {"message": f"No. {', '.join(sorted(unknown))}"}})
            return
        if request.get("stream"):
            await self.completion_events(writer, request, request_id, is_chat=is_chat)
            return
        said = request["messages" if is_chat else "prompt"]
        pieces = [piece async for piece in self.mock.answer(request_id, asked, said)]
        text = "".join(piece[0] for piece in pieces)
        usage = {"prompt_tokens": self.mock.input_tokens(said), "completion_tokens": asked}
        choice = {"message": {"content": text}} if is_chat else {"text": text}
        await self.document(writer, 200, {"choices": [choice], "usage": usage})

    async def completion_events(self, writer, request, request_id, *, is_chat) -> None:
        script = Script() if request_id == "probe" else self.mock.script
        options, done = request.get("stream_options", {}), 0
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        base = {"id": request_id, "object": "chat.completion.chunk" if is_chat else "text_completion", "created": 0}
        base |= {"model": "mock"}
        if is_chat:
            choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            self.event(writer, json.dumps(base | {"choices": [choice]}))
        said = request["messages" if is_chat else "prompt"]
        given = self.mock.input_tokens(said)
        try:
            async for text, done, _ in self.mock.answer(request_id, tokens_of(request), said):
                choice = {"delta": {"content": text}} if is_chat else {"text": text}
                event = base | {"choices": [choice | {"index": 0, "finish_reason": None}]}
                if options.get("continuous_usage_stats"):
                    event["usage"] = {"prompt_tokens": given, "completion_tokens": done}
                self.event(writer, "not json" if script.is_malformed else json.dumps(event))
                if self.mock.is_reset(script):
                    writer.transport.abort()
                    return
        except RuntimeError as error:
            self.event(writer, json.dumps({"error": {"message": str(error)}}))
        if script.is_never_final:
            await asyncio.sleep(3600)
        if script.is_done_said:
            usage = {"prompt_tokens": given, "completion_tokens": done} if options.get("include_usage") else None
            self.completion_end(writer, base, usage, is_chat=is_chat)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def completion_end(self, writer, base, usage, *, is_chat) -> None:
        last = {"delta": {}} if is_chat else {"text": ""}
        self.event(writer, json.dumps(base | {"choices": [last | {"index": 0, "finish_reason": "length"}]}))
        if usage:
            self.event(writer, json.dumps({"choices": [], "usage": usage}))
        self.event(writer, "[DONE]")

    async def stream(self, writer, request) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        script, sent, said = self.mock.script, 0, request["text_input"]
        try:
            async for text, count, _ in self.mock.answer(request["id"], request["max_tokens"], said):
                given = self.mock.input_tokens(said)
                event = {"text_output": text, "num_output_tokens": count, "num_input_tokens": given}
                if script.counts == "none":
                    event = {"text_output": text}
                self.event(writer, "not json" if script.is_malformed else json.dumps(event))
                sent += 1
                if sent == 2 and self.mock.is_reset(script):
                    writer.transport.abort()
                    return
        except RuntimeError as error:
            self.event(writer, json.dumps({"error": str(error)}))
        if script.is_never_final:
            await asyncio.sleep(3600)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def event(self, writer, data: str) -> None:
        raw = f"data: {data}\n\n".encode()
        writer.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")


async def main(script: Script, log: Path) -> None:
    mock = Mock(script, log)
    service = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(mock), service)
    grpc_port = service.add_insecure_port("127.0.0.1:0")
    await service.start()
    http = await asyncio.start_server(Http(mock).serve, "127.0.0.1", 0)
    http_port = http.sockets[0].getsockname()[1]
    print(json.dumps({"grpc": grpc_port, "http": http_port, "script": asdict(script)}), flush=True)
    await service.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(Script(**json.loads(sys.argv[1])), Path(sys.argv[2])))
