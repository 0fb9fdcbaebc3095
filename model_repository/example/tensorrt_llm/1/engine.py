"""One ContinuousBatchingPipeline in a thread of its own: requests join between steps and leave when they are done."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from asked import Asked
from detokenizer import Boundary, Detokenizer
from replies import Reply
from served import Refused, flag, refusal

#: Tokens in a block of OpenVINO's paged KV cache on a CPU.
TOKENS_PER_BLOCK = 32
#: Appears when the server stops and its requests have had their time; set by what starts the server.
STOP_FILE = os.environ.get("TRTK_STOP_FILE")
#: With stream_interval "auto", about so many messages leave after each step, whatever the number of streams.
MESSAGES_PER_STEP = 4


@dataclass(frozen=True)
class Settings:
    """The parameters of config.pbtxt that shape the pipeline."""

    max_num_tokens: int
    max_batch_size: int
    num_kv_blocks: int
    cache_gib: int
    has_prefix_cache: bool
    splits_prompts: bool
    num_threads: int
    stream_interval: int  # 0: auto
    cancel_period_s: float

    @classmethod
    def read(cls, settings: dict[str, str]) -> Settings:
        """Read them; what is not set keeps OpenVINO's own default."""
        kv_tokens = int(settings.get("max_tokens_in_paged_kv_cache", 0))
        interval = settings.get("stream_interval", "auto")
        return cls(
            max_num_tokens=int(settings["max_num_tokens"]),
            max_batch_size=int(settings["max_batch_size"]),
            num_kv_blocks=-(-kv_tokens // TOKENS_PER_BLOCK),
            cache_gib=0 if kv_tokens else -(-int(settings.get("kv_cache_bytes", 0)) // 2**30),
            has_prefix_cache=flag(settings.get("enable_kv_cache_reuse", "true")),
            splits_prompts=flag(settings.get("enable_chunked_context", "true")),
            num_threads=int(settings.get("num_threads", 0)),
            stream_interval=0 if interval == "auto" else int(interval),
            cancel_period_s=int(settings.get("cancellation_check_period_ms", 100)) / 1e3,
        )

    def pipeline(self, folder: Path) -> Any:
        """Load the model."""
        import openvino_genai

        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = self.max_num_tokens
        scheduler.max_num_seqs = self.max_batch_size
        scheduler.num_kv_blocks = self.num_kv_blocks
        scheduler.cache_size = self.cache_gib
        scheduler.enable_prefix_caching = self.has_prefix_cache
        scheduler.dynamic_split_fuse = self.splits_prompts
        # What the build decided for this model, such as the precision of activations; a parameter here wins.
        chosen = folder / "runtime.json"
        properties = json.loads(chosen.read_text(encoding="utf-8")) if chosen.is_file() else {}
        if self.num_threads:
            properties["INFERENCE_NUM_THREADS"] = self.num_threads
        return openvino_genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)


class Row:
    """One sequence that the pipeline works on."""

    def __init__(self, reply: Reply, asked: Asked, index: int, boundary: Boundary | None) -> None:
        self.reply, self.asked, self.index, self.boundary = reply, asked, index, boundary
        self.handle: Any = None
        self.tokens: list[int] = []
        self.sent = 0
        self.next_at = 1  # the first token leaves at once
        self.is_done = self.has_answered = False
        self.scheduled_ns = self.first_token_ns = self.last_token_ns = 0
        self.words = [word for word in asked.stop_words if len(word) > 1]

    def collect(self) -> None:
        """Take what the last step made."""
        import openvino_genai

        while self.handle.can_read():
            for output in self.handle.read().values():
                for token in output.generated_ids:
                    self._take(token)
                self.is_done |= output.finish_reason != openvino_genai.GenerationFinishReason.NONE
        if not self.is_done and not self.tokens:
            self._check_room()

    def _take(self, token: int) -> None:
        if self.is_done or token == self.asked.end_id:
            return
        now = time.time_ns()
        self.first_token_ns = self.first_token_ns or now
        self.last_token_ns = now
        self.tokens.append(token)
        if self.boundary:
            self.boundary.add(token)
        if any(self.tokens[-len(word) :] == word for word in self.words):
            self.is_done = True
            self.handle.stop()

    def _check_room(self) -> None:
        import openvino_genai

        if self.handle.get_status() == openvino_genai.GenerationStatus.IGNORED:
            raise Refused(
                f"The KV cache has no room for a prompt of {len(self.asked.prompt)} tokens; raise"
                " max_tokens_in_paged_kv_cache or kv_cache_bytes."
            )

    def send(self, interval: int) -> None:
        """Send what is certain, when it is due; all of it when the row is done."""
        if self.is_done:
            self._send(len(self.tokens))
        elif self.boundary and self.boundary.certain >= self.next_at:
            # Streams that began together are spread over the steps, so that their messages do not come in bursts.
            self.next_at = self.boundary.certain + (interval if self.sent else 1 + id(self) // 64 % interval)
            self._send(self.boundary.certain)

    def _send(self, until: int) -> None:
        tokens, self.sent = self.tokens[self.sent : until], until
        if self.asked.includes_input and not self.has_answered:
            tokens = [*self.asked.prompt.tolist(), *tokens]
        self.has_answered = True
        self.reply.send(self, tokens, is_last=self.is_done)


class Engine:
    """The pipeline's only user."""

    def __init__(self, folder: Path, settings: Settings, detokenizer: Detokenizer) -> None:
        self.settings = settings
        self.pipeline = settings.pipeline(folder)
        self.detokenizer = detokenizer
        self.classes = detokenizer.classes()
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.rows: list[Row] = []
        self.count = 0
        self.next_cancel_check = 0.0
        self.thread = threading.Thread(target=self.run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self.thread.start()

    def submit(self, reply: Reply, rows: list[Asked]) -> None:
        """Queue a request."""
        self.inbox.put((reply, rows))

    def stop(self, request_id: str) -> None:
        """Queue the order to end what runs under a request id."""
        self.inbox.put(request_id)

    def close(self) -> None:
        """Let the thread end."""
        self.inbox.put(None)
        self.thread.join(timeout=10)

    def run(self) -> None:
        """Step as long as there is work; wait for work when there is none."""
        while self.admit():
            if not self.rows:
                continue
            try:
                self.pipeline.step()
            except Exception as error:  # noqa: BLE001 - any failure of the engine must reach every client that waits
                self.fail_all(error)
                continue
            self.deliver()
            self.drop_cancelled()

    def admit(self) -> bool:
        """Take what waits in the inbox; False when the engine is to end."""
        try:
            while (item := self.inbox.get(block=not self.rows)) is not None:
                if isinstance(item, str):
                    self.end(item)
                else:
                    self.add(*item)
        except queue.Empty:
            return True
        return False

    def add(self, reply: Reply, rows: list[Asked]) -> None:
        """Hand a request's rows to the pipeline."""
        for index, asked in enumerate(rows):
            boundary = Boundary(self.detokenizer, self.classes) if asked.is_streaming else None
            row = Row(reply, asked, index, boundary)
            try:
                row.handle = self.handle(asked)
            except Exception as error:  # noqa: BLE001 - what the engine refuses must not end its thread
                reply.fail(refusal(error))
                return
            row.scheduled_ns = time.time_ns()
            self.rows.append(row)

    def handle(self, asked: Asked) -> Any:
        """Begin one sequence."""
        import openvino
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = asked.max_tokens
        config.stop_token_ids = asked.stop_token_ids
        config.ignore_eos = not config.stop_token_ids
        if asked.end_id >= 0:
            config.eos_token_id = asked.end_id
        for name, value in asked.sampling.items():
            setattr(config, name, value)
        self.count += 1
        return self.pipeline.add_request(self.count, openvino.Tensor(asked.prompt.reshape(1, -1)), config)

    def interval(self) -> int:
        """Return how many tokens a message of a stream carries."""
        return self.settings.stream_interval or max(1, len(self.rows) // MESSAGES_PER_STEP)

    def deliver(self) -> None:
        """Send what the step made."""
        interval = self.interval()
        for row in self.rows:
            try:
                row.collect()
            except Refused as error:
                row.reply.fail(refusal(error))
            row.send(interval)
        self.rows = [row for row in self.rows if not (row.is_done or row.reply.is_closed)]

    def drop_cancelled(self) -> None:
        """Ask now and then whether the clients are still there, and whether the server is."""
        now = time.monotonic()
        if now < self.next_cancel_check:
            return
        self.next_cancel_check = now + self.settings.cancel_period_s
        is_stopping = STOP_FILE is not None and Path(STOP_FILE).exists()
        for reply in {row.reply for row in self.rows}:
            if is_stopping:
                self.cancel(reply)
                reply.fail(pb_utils.TritonError("The server is stopping.", pb_utils.TritonError.UNAVAILABLE))
            elif reply.sender.is_cancelled():
                self.cancel(reply)
                reply.fail(pb_utils.TritonError("The request was cancelled.", pb_utils.TritonError.CANCELLED))

    def end(self, request_id: str) -> None:
        """End what runs under a request id: its clients get what there is so far."""
        replies = {row.reply for row in self.rows if row.reply.request_id == request_id}
        if len(replies) > 1:
            return  # two clients took the same id: which of them is meant cannot be known
        for row in (row for reply in replies for row in self.cancel(reply)):
            row.is_done = True
            row.send(1)

    def cancel(self, reply: Reply) -> list[Row]:
        """Take a request's rows out of the pipeline."""
        gone = [row for row in self.rows if row.reply is reply]
        for row in gone:
            row.handle.cancel()
        self.rows = [row for row in self.rows if row.reply is not reply]
        return gone

    def fail_all(self, error: BaseException) -> None:
        """Answer everyone, and end the process: what state the pipeline is in is not known, and Triton restarts it."""
        for row in self.rows:
            row.reply.fail(refusal(error))
        time.sleep(0.5)  # the answers leave through shared memory
        os._exit(1)
