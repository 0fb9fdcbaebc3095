"""One ContinuousBatchingPipeline in a thread of its own: requests join between steps and leave when they are done."""

from __future__ import annotations

import os
import queue
import threading
import time
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from asked import Asked
from detokenizer import Boundary, Detokenizer
from meters import Meters
from pipeline import begun, warm_up
from replies import Reply
from row import Row, Words
from served import Refused
from settings import Settings

#: Appears when the server stops and its requests have had their time; set by what starts the server.
STOP_FILE = os.environ.get("TRTK_STOP_FILE")
#: With stream_interval "auto", about so many messages leave after each step, whatever the number of streams.
MESSAGES_PER_STEP = 4
#: The pipeline drops in one step what ended or was cancelled, and counts the KV blocks in use in the next.
IDLE_STEPS = 2


class Engine:
    """The pipeline's only user."""

    def __init__(self, folder: Path, settings: Settings, detokenizer: Detokenizer, *, meters: Meters) -> None:
        self.settings = settings
        self.pipeline = settings.pipeline(folder)
        self.detokenizer = detokenizer
        self.classes = detokenizer.classes()
        self.meters = meters
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.rows: list[Row] = []
        self.count = 0
        self.idle_steps = IDLE_STEPS
        self.next_cancel_check = 0.0
        self.thread = threading.Thread(target=self.run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to serve, warm: the first sequence costs what later ones do not."""
        self.meters.start(self.pipeline, block_share=warm_up(self.pipeline))
        self.thread.start()

    def submit(self, reply: Reply, rows: list[Asked]) -> None:
        """Queue a request."""
        self.inbox.put((reply, rows))

    def waiting(self) -> int:
        """Return how many sequences and requests wait for others to end."""
        return max(0, len(self.rows) - self.settings.max_batch_size) + self.inbox.qsize()

    def stop(self, request_id: str) -> None:
        """Queue the order to end what runs under a request id."""
        self.inbox.put(request_id)

    def close(self) -> None:
        """Let the thread end."""
        self.inbox.put(None)
        self.thread.join(timeout=10)
        self.meters.close()

    def run(self) -> None:
        """Step as long as there is work; wait for work when there is none."""
        try:
            while self.admit():
                if not self.is_idle():
                    self.step()
        except Exception as error:  # noqa: BLE001 - any failure must reach every client that waits, those to come too
            self.fail_all(error)

    def step(self) -> None:
        """Let every sequence have its next token."""
        self.idle_steps = 0 if self.rows else self.idle_steps + 1
        self.pipeline.step()
        self.deliver()
        self.drop_cancelled()
        self.meters.step(self.pipeline, self.rows, waiting=self.inbox.qsize())

    def is_idle(self) -> bool:
        """Whether there is nothing to do, and nothing left in the pipeline of what there was."""
        return not self.rows and self.idle_steps >= IDLE_STEPS

    def admit(self) -> bool:
        """Take what waits in the inbox; False when the engine is to end."""
        try:
            while (item := self.inbox.get(block=self.is_idle())) is not None:
                if isinstance(item, str):
                    self.end(item)
                else:
                    self.add(*item)
        except queue.Empty:
            return True
        return False

    def add(self, reply: Reply, rows: list[Asked]) -> None:
        """Hand a request's rows to the pipeline."""
        for asked in rows:
            try:
                boundary = Boundary(self.detokenizer, self.classes) if asked.is_streaming else None
                row = Row(reply, asked, Words(asked, self.detokenizer, self.classes), boundary)
                row.start(self.begin)
            except Exception as error:  # noqa: BLE001 - what the engine refuses must not end its thread
                self.cancel(reply)
                reply.fail(error)
                return
            self.rows.append(row)

    def begin(self, row: Row, banned: set[int]) -> Any:
        """Hand a sequence to the pipeline, from its tokens so far on."""
        self.count += 1
        self.idle_steps = 0
        return begun(self.pipeline, self.count, row, banned=banned)

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
                row.reply.fail(error)
            # Who wants probabilities wants to know of which token: a message for each.
            row.send(1 if row.asked.has_log_probs else interval)
            if row.is_done:
                self.meters.finished(row)
        if any(row.is_done or row.reply.is_closed for row in self.rows):
            self.drop_closed()

    def drop_closed(self) -> None:
        """Forget what has ended; what still runs for a request that failed is taken out of the pipeline."""
        for row in self.rows:
            if row.reply.is_closed and not row.is_done:
                row.handle.cancel()
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
                reply.fail(Refused("The server is stopping.", code=pb_utils.TritonError.UNAVAILABLE))
            elif reply.sender.is_cancelled():
                self.cancel(reply)
                reply.fail(Refused("The request was cancelled.", code=pb_utils.TritonError.CANCELLED))

    def end(self, request_id: str) -> None:
        """End what runs under a request id: its clients get what there is so far."""
        replies = {row.reply for row in self.rows if row.reply.request_id == request_id}
        if len(replies) > 1:
            return  # two clients took the same id: which of them is meant cannot be known
        for row in (row for reply in replies for row in self.cancel(reply)):
            row.finish("cancelled")
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
        waiting = []
        while not self.inbox.empty():
            waiting.append(self.inbox.get())
        for reply in {*(row.reply for row in self.rows), *(item[0] for item in waiting if isinstance(item, tuple))}:
            reply.fail(error)
        time.sleep(0.5)  # the answers leave through shared memory
        os._exit(1)
