"""The tensors of the engine flow's ensemble in front of TensorRT-LLM's LLM API: its clients need not change."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
import yaml
from contract import Asked, asked_of, outputs_of
from served import Refused, refusal, tensors_of

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
        self.adapters = arguments.get("lora_config", {}).get("lora_dir", [])
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="requests", daemon=True).start()
        from tensorrt_llm import LLM

        self.llm = LLM(**arguments)

    def execute(self, requests: list[Any]) -> None:
        """Begin the requests; their answers go through their senders."""
        for request in requests:
            asyncio.run_coroutine_threadsafe(self.serve(request, request.get_response_sender()), self.loop)

    async def serve(self, request: Any, sender: Any) -> None:
        """Answer one request, with an error of one sentence where it cannot be answered."""
        last = []
        try:
            await self.generate(request, sender)
        except Exception as error:  # noqa: BLE001 - the door: what is not caught here reaches the client as a traceback
            last = [pb_utils.InferenceResponse(error=refusal(error))]
        sender.send(*last, flags=FINAL)

    async def generate(self, request: Any, sender: Any) -> None:
        """Send the text piece by piece, or whole at the end."""
        from tensorrt_llm import SamplingParams

        asked = asked_of(tensors_of(request))
        wanted = set(request.requested_output_names())
        generation = self.llm.generate_async(
            asked.text,
            sampling_params=SamplingParams(**asked.sampling),
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

    async def send_all(self, generation: Any, sender: Any, asked: Asked, wanted: set[str]) -> None:
        """Send what is new in each result; the LLM API gives the text so far."""
        sent = 0
        results = generation if asked.is_streaming else [await generation.aresult()]
        async for result in each(results):
            output = result.outputs[0]
            text = (asked.text if asked.includes_input and not sent else "") + output.text[sent:]
            sent = len(output.text)
            sender.send(pb_utils.InferenceResponse(outputs_of(result, text, asked, wanted)))

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
