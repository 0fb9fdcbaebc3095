"""Text in, text out: calls preprocessing, the engine and postprocessing by name, one thread for each request."""

from __future__ import annotations

import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from calls import REPLACEMENT, TO_ENGINE, TO_PREPROCESSING, arrays_of, batch_of, check, engine_inputs, request_for
from drafts import Drafted, number_of
from served import Refused, parameters, refusal, tensors_of, wants_code

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
CANCEL_CHECK_S = 0.1
NOTHING = np.empty((1, 1, 0), np.int32)


class TritonPythonModel:
    """Keeps its requests in flight together: the threads mostly wait for the engine."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the threads."""
        settings = parameters(args)
        config = json.loads(args["model_config"])
        self.engine = settings.get("tensorrt_llm_model_name", "tensorrt_llm")
        self.draft = settings.get("tensorrt_llm_draft_model_name", "")
        # Where several models share a server, each has a preprocessing and a postprocessing of its own.
        self.preprocessing = settings.get("preprocessing_model_name", "preprocessing")
        self.postprocessing = settings.get("postprocessing_model_name", "postprocessing")
        self.is_decoupled = config.get("model_transaction_policy", {}).get("decoupled", False)
        at_once, waiting = int(settings.get("max_requests_in_flight", 64)), int(settings.get("max_requests_waiting", 0))
        self.pool = ThreadPoolExecutor(at_once, "request")
        self.most = at_once + waiting if waiting else 0  # requests that may be here; 0: any number
        self.count = 0
        self.running: dict[str, Any] = {}
        self.lock = threading.Lock()
        threading.Thread(target=self.watch, name="watch", daemon=True).start()

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Begin the requests; a decoupled model answers through their senders."""
        if not self.is_decoupled:
            return [self.whole(request) for request in requests]
        for request in requests:
            self.begin(request, request.get_response_sender())
        return None

    def begin(self, request: Any, sender: Any) -> None:
        """Give a request to the threads, unless too many wait for one of them."""
        with self.lock:
            is_refused = 0 < self.most <= self.count
            self.count += not is_refused
        if is_refused:
            words = f"Exceeds maximum queue size: {self.most} requests run and wait already."
            refused = refusal(Refused(words, code=pb_utils.TritonError.UNAVAILABLE), has_code=wants_code(request))
            sender.send(pb_utils.InferenceResponse(error=refused), flags=FINAL)
        else:
            self.pool.submit(self.serve_counted, request, sender)

    def serve_counted(self, request: Any, sender: Any) -> None:
        """Answer one request, and make room for another."""
        try:
            self.serve(request, sender)
        finally:
            with self.lock:
                self.count -= 1

    def whole(self, request: Any) -> Any:
        """Return the one answer of a model that is not decoupled."""
        answer = Collected()
        self.serve(request, answer)
        return answer.responses[-1]

    def serve(self, request: Any, sender: Any) -> None:
        """Answer one request, with an error of one sentence where it cannot be answered."""
        engine_id = f"{request.request_id()}#{uuid.uuid4().hex}"
        self.running[engine_id] = sender
        last = []
        try:
            self.generate(request, sender, engine_id)
        except Exception as error:  # noqa: BLE001 - the door: what is not caught here reaches the client as a traceback
            last = [pb_utils.InferenceResponse(error=refusal(error, has_code=wants_code(request)))]
        # Asking a sender about cancellation after its final answer crashes the server, so the watch ends first.
        with self.lock:
            self.running.pop(engine_id, None)
        sender.send(*last, flags=FINAL)

    def generate(self, request: Any, sender: Any, engine_id: str) -> None:
        """Send the text piece by piece."""
        # Tensors that config.pbtxt reshapes to the batch alone come as [1]; the models behind take them as [1, 1].
        asked = {name: v.reshape(-1, 1) if v.ndim == 1 else v for name, v in tensors_of(request).items()}
        check(asked)
        per_step = number_of(asked, has_draft=bool(self.draft))
        tokens = self.call(
            self.preprocessing, {TO_PREPROCESSING[k]: v for k, v in asked.items() if k in TO_PREPROCESSING}
        )
        wanted = set(request.requested_output_names()) - {"text_output"}
        if per_step:
            has_logits = "use_draft_logits" in asked and bool(asked["use_draft_logits"].any())
            made = Drafted(engine_inputs(asked, tokens), per_step, has_logits=has_logits)
            sender.send(self.draft_and_check(made, asked, wanted=wanted, engine_id=engine_id))
            return
        is_numbered = "num_return_sequences" in asked and asked["num_return_sequences"].max() > 1
        outputs = {"output_ids", "sequence_length", *wanted} | ({"sequence_index"} if is_numbered else set())
        call = request_for(self.engine, engine_inputs(asked, tokens), sorted(outputs), engine_id)
        held: dict[int, np.ndarray] = {}
        others: dict[int, list[Any]] = {}
        for response in call.exec(decoupled=True):
            answer = arrays_of(response)
            if not answer:
                continue
            number = int(answer["sequence_index"].reshape(-1)[0]) if is_numbered else 0
            held[number], text = self.text_of(held.get(number, NOTHING), answer)
            others[number] = [pb_utils.Tensor(name, value) for name, value in answer.items() if name in wanted]
            if text is not None:
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("text_output", text), *others[number]]))
        for number, rest in held.items():
            if rest.size:
                text = self.call(self.postprocessing, batch_of(rest))["OUTPUT"]
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("text_output", text), *others[number]]))

    def draft_and_check(self, made: Drafted, asked: dict[str, np.ndarray], *, wanted: set[str], engine_id: str) -> Any:
        """Return the one answer that a draft model helped to make."""
        of_the_draft = {"generation_logits"} if made.has_logits else set()

        def call(is_draft: bool, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            model, outputs = (self.draft, of_the_draft) if is_draft else (self.engine, wanted)
            answers = request_for(model, inputs, ["output_ids", "sequence_length", *sorted(outputs)], engine_id)
            found = [arrays_of(response) for response in answers.exec(decoupled=True)]
            return next((answer for answer in reversed(found) if answer), {})

        made.make(call, lambda: self.running.get(engine_id) is not None)
        text = self.call(self.postprocessing, batch_of(made.shown(asked)))["OUTPUT"]
        others = [pb_utils.Tensor(name, value) for name, value in made.others(wanted).items()]
        return pb_utils.InferenceResponse([pb_utils.Tensor("text_output", text), *others])

    def text_of(self, held: np.ndarray, answer: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the new text, or keep tokens back that end inside a character."""
        tokens, lengths = answer["output_ids"], answer["sequence_length"]
        if tokens.shape[:2] != (1, 1):
            return held, self.call(self.postprocessing, {"TOKENS_BATCH": tokens, "SEQUENCE_LENGTH": lengths})["OUTPUT"]
        tokens = np.concatenate([held, tokens[:, :, : lengths[0, 0]]], axis=2)
        text = self.call(self.postprocessing, batch_of(tokens))["OUTPUT"]
        if text[0].decode().endswith(REPLACEMENT):
            return tokens, None
        return NOTHING, text

    def call(self, model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Call a model that answers once."""
        outputs = list(TO_ENGINE) if model == self.preprocessing else ["OUTPUT"]
        return arrays_of(request_for(model, inputs, outputs, "").exec())

    def watch(self) -> None:
        """Tell the engine when a client has left, until it has heard: an order before its request changes nothing."""
        while True:
            time.sleep(CANCEL_CHECK_S)
            for engine_id in list(self.running):
                if self.is_left(engine_id):
                    self.stop(engine_id)

    def is_left(self, engine_id: str) -> bool:
        """Say of a request that still runs whether its client has gone: None takes its sender's place."""
        with self.lock:
            if engine_id not in self.running:
                return False
            sender = self.running[engine_id]
            if sender is not None and sender.is_cancelled():
                sender = self.running[engine_id] = None
        return sender is None

    def stop(self, engine_id: str) -> None:
        """Send the engine the order to stop."""
        inputs = {"stop": np.ones((1, 1), bool)}
        inputs |= {name: np.ones((1, 1), np.int32) for name in ("input_lengths", "request_output_len")}
        for _ in request_for(self.engine, inputs, ["output_ids"], engine_id).exec(decoupled=True):
            pass

    def finalize(self) -> None:
        """Let the threads end."""
        self.pool.shutdown(wait=False, cancel_futures=True)


class Collected:
    """Takes the place of a response sender where there is none."""

    def __init__(self) -> None:
        self.responses: list[Any] = []

    def send(self, response: Any = None, flags: int = 0) -> None:  # noqa: ARG002 - the sender's signature
        """Keep the answer."""
        if response is not None:
            self.responses.append(response)

    def is_cancelled(self) -> bool:
        """Say that nobody left: a model that is not decoupled cannot know."""
        return False
