"""The tensors of tensorrt_llm in front of one OpenVINO pipeline: requests in, tokens out, all in flight together."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import triton_python_backend_utils as pb_utils
import vocabulary
from asked import Asked, Limits, rows_of
from detokenizer import Detokenizer
from engine import Engine
from families import Families
from guides import CHECKERS, Guide, Guides
from meters import Meters
from replies import Reply
from served import Refused, flag, parameters, path_of, refusal, tensors_of, tokenizer_in, wants_code
from settings import Settings


class TritonPythonModel:
    """Reads requests and hands them to the engine's thread; nothing waits here."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model once."""
        settings = parameters(args)
        folder = path_of(args, settings, "gpt_model_path")
        detokenizer = Detokenizer(tokenizer_in(path_of(args, settings, "tokenizer_dir")))
        chosen = Settings.read(settings)
        self.limits = Limits(
            max_seq_len=int(settings["max_seq_len"]),
            excludes_input=flag(settings.get("exclude_input_in_output", "true")),
            max_sequences=chosen.max_batch_size,
            vocabulary=vocabulary.size_in(folder),
        )
        meters = Meters(Families(args, without=("reused",)), chosen)
        self.engine = Engine(folder, chosen, detokenizer, meters=meters)
        self.engine.start()
        self.guides, self.checks = Guides(folder), ThreadPoolExecutor(CHECKERS, "guides")
        self.lock = threading.Lock()
        self.unchecked: dict[Reply, bool] = {}  # whether it was told to stop meanwhile
        self.most_waiting = queue_size(args)

    def execute(self, requests: list[Any]) -> None:
        """Queue the requests; the answers come from the engine's thread."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self.take(request, sender)
            except Exception as error:  # noqa: BLE001 - the door: what is not caught here reaches the client as a traceback
                sender.send(
                    pb_utils.InferenceResponse(error=refusal(error, has_code=wants_code(request))),
                    flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
                )

    def take(self, request: Any, sender: Any) -> None:
        """Read one request: work, or the order to stop the work of the same request id."""
        tensors = tensors_of(request)
        if "stop" in tensors and tensors["stop"].any():
            if not request.request_id():
                raise Refused("stop needs the request id of the request to stop.")
            self.stop(request.request_id())
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            return
        waiting = self.engine.waiting() + len(self.unchecked)
        if self.most_waiting and waiting >= self.most_waiting:
            raise Refused(
                f"Exceeds maximum queue size: {waiting} requests wait already.", code=pb_utils.TritonError.UNAVAILABLE
            )
        rows = rows_of(tensors, self.limits)
        reply = Reply(sender, request, tensors, len(rows))
        guides = {row.guide for row in rows if row.guide}
        if all(self.guides.is_known(*guide) for guide in guides):
            self.check(guides)
            self.engine.submit(reply, rows)
        else:
            with self.lock:
                self.unchecked[reply] = False
            self.checks.submit(self.take_guided, reply, rows, guides)  # which may take seconds

    def check(self, guides: set[Guide]) -> None:
        """Raise Refused for a guide that cannot be followed."""
        for guide in guides:
            self.guides.check(*guide)

    def take_guided(self, reply: Reply, rows: list[Asked], guides: set[Guide]) -> None:
        """Hand rows to the engine once it is sure that their guides can be followed."""
        try:
            self.check(guides)
            self.engine.submit(reply, rows)
        except Exception as error:  # noqa: BLE001 - the door: an answer that never comes is worse than any error
            reply.fail(error)
        with self.lock:
            is_stopped = self.unchecked.pop(reply)
        if is_stopped:  # an order that came before its request changes nothing in the engine
            self.engine.stop(reply.request_id)

    def stop(self, request_id: str) -> None:
        """End what runs under a request id, and what is about to."""
        with self.lock:
            for reply in self.unchecked:
                self.unchecked[reply] |= reply.request_id == request_id
        self.engine.stop(request_id)

    def finalize(self) -> None:
        """Stop the engine's thread."""
        self.engine.close()
        self.checks.shutdown(wait=False, cancel_futures=True)
        self.guides.close()


def queue_size(args: dict[str, str]) -> int:
    """Return how many requests may wait, 0 for any number: Triton's own queue is empty, since nothing waits here."""
    batching = json.loads(args["model_config"]).get("dynamic_batching") or {}
    return int((batching.get("default_queue_policy") or {}).get("max_queue_size", 0))
