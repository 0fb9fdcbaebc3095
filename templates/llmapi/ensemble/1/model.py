"""The tensors of the engine flow's ensemble in front of TensorRT-LLM's LLM API: its clients need not change."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
import yaml
from chat import Chat
from contract import Asked, asked_of, outputs_of
from families import Families
from served import Refused, parameters, refusal, tensors_of, wants_code
from stats import follow

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
SETTINGS = "model.yaml"


class TritonPythonModel:
    """Hands requests to the LLM API's own event loop; nothing waits here."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model that model.yaml names."""
        folder = Path(args["model_repository"])
        arguments = arguments_of(folder / args["model_version"] / SETTINGS, folder.parent)
        triton = arguments.pop("triton_config")
        self.check_s = triton["cancellation_check_period_ms"] / 1000
        self.most_sequences = triton["max_batch_size"]
        waiting = int(parameters(args).get("max_queue_size", 0))
        self.most = self.most_sequences + waiting if waiting else 0  # requests that may be here; 0: any number
        self.count, self.lock = 0, threading.Lock()
        self.adapters = arguments.get("lora_config", {}).get("lora_dir", [])
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="requests", daemon=True).start()
        self.can_guide = bool(arguments.get("guided_decoding_backend"))
        self.chat = Chat.of(Path(arguments["model"]))
        from tensorrt_llm import LLM

        self.llm = LLM(**arguments)
        self.families = Families(args)
        if arguments.get("enable_iter_perf_stats"):
            asyncio.run_coroutine_threadsafe(follow(self.llm, self.families), self.loop)

    def execute(self, requests: list[Any]) -> None:
        """Begin the requests; their answers go through their senders."""
        for request in requests:
            self.begin(request, request.get_response_sender())

    def begin(self, request: Any, sender: Any) -> None:
        """Hand a request to the loop, unless too many wait already."""
        with self.lock:
            is_refused = 0 < self.most <= self.count
            self.count += not is_refused
        if is_refused:
            words = f"Exceeds maximum queue size: {self.most} requests run and wait already."
            refused = refusal(Refused(words, code=pb_utils.TritonError.UNAVAILABLE), has_code=wants_code(request))
            sender.send(pb_utils.InferenceResponse(error=refused), flags=FINAL)
        else:
            asyncio.run_coroutine_threadsafe(self.serve(request, sender), self.loop)

    async def serve(self, request: Any, sender: Any) -> None:
        """Answer one request, with an error of one sentence where it cannot be answered."""
        last = []
        try:
            await self.generate(request, sender)
        except Exception as error:  # noqa: BLE001 - the door: what is not caught here reaches the client as a traceback
            last = [pb_utils.InferenceResponse(error=refusal(error, has_code=wants_code(request)))]
        finally:
            with self.lock:
                self.count -= 1
        sender.send(*last, flags=FINAL)

    async def generate(self, request: Any, sender: Any) -> None:
        """Send the text piece by piece, or whole at the end."""
        from tensorrt_llm import SamplingParams

        asked = asked_of(tensors_of(request), self.chat)
        count = asked.sampling.get("n", 1)
        if count > self.most_sequences:
            raise Refused(f"num_return_sequences is {count}; it may be 1 to {self.most_sequences}.")
        wanted = set(request.requested_output_names())
        generation = self.llm.generate_async(
            asked.text,
            sampling_params=SamplingParams(**asked.sampling, **self.guided(asked)),
            lora_request=self.adapter(asked.adapter),
            streaming=asked.is_streaming,
        )
        watch = self.loop.create_task(self.stop_when_left(generation, sender))
        try:
            await self.send_all(generation, sender, asked, wanted)
        finally:
            watch.cancel()  # asking a sender about cancellation after its final answer crashes the server

    def adapter(self, number: int) -> Any:
        """Return the LLM API's name of an adapter, None where none is asked for."""
        if not number:
            return None
        if number > len(self.adapters):
            raise Refused(f"lora_task_id is {number}; this model has {len(self.adapters)} adapters, counted from 1.")
        from tensorrt_llm.executor.request import LoRARequest

        path = self.adapters[number - 1]
        return LoRARequest(Path(path).name, number, path)

    def guided(self, asked: Asked) -> dict[str, Any]:
        """Return what the text must follow, in the LLM API's words."""
        if not asked.guide:
            return {}
        if not self.can_guide:
            raise Refused("Guided decoding is off: model.yaml names no guided_decoding_backend.")
        from tensorrt_llm.llmapi import GuidedDecodingParams

        kind, guide = asked.guide
        return {"guided_decoding": GuidedDecodingParams(**{kind: guide if kind != "json_object" else True})}

    async def send_all(self, generation: Any, sender: Any, asked: Asked, wanted: set[str]) -> None:
        """Send what is new in each result; the LLM API gives the text so far."""
        sent: dict[int, tuple[int, int]] = {}  # of each output, characters and tokens
        finished: set[int] = set()
        results = generation if asked.is_streaming else [await generation.aresult()]
        async for result in each(results):
            for output in result.outputs:
                chars, tokens = sent.get(output.index, (0, 0))
                if output.index in finished:
                    continue
                text = (asked.text if asked.includes_input and output.index not in sent else "") + output.text[chars:]
                sent[output.index] = len(output.text), len(output.token_ids)
                tensors = outputs_of(result, output, text, asked, wanted=wanted, sent=tokens)
                sender.send(pb_utils.InferenceResponse(tensors))
                if output.finish_reason:
                    finished.add(output.index)
                    self.families.observe(
                        input_tokens=len(result.prompt_token_ids), output_tokens=len(output.token_ids)
                    )

    async def stop_when_left(self, generation: Any, sender: Any) -> None:
        """Stop the work for a client that has gone."""
        while not sender.is_cancelled():
            await asyncio.sleep(self.check_s)
        generation.abort()

    def finalize(self) -> None:
        """Stop the engine, then the loop."""
        self.llm.shutdown()
        self.loop.call_soon_threadsafe(self.loop.stop)


async def each(results: Any) -> Any:
    """Yield from a list as from a stream."""
    if isinstance(results, list):
        for result in results:
            yield result
    else:
        async for result in results:
            yield result


def arguments_of(file: Path, repository: Path) -> dict[str, Any]:
    """Return what model.yaml says; a relative model starts at the repository, and adapters lie below the model."""
    arguments: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    model = (repository / arguments["model"]).resolve()
    if not model.is_dir():
        raise Refused(f"{file.name} names the model {model}, and there is no such folder.")
    arguments["model"] = str(model)
    if "lora_config" in arguments:
        folders = arguments["lora_config"]["lora_dir"]
        arguments["lora_config"]["lora_dir"] = [str(model / folder) for folder in folders]
    return arguments
