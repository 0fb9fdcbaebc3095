"""A language model by timetable on a real Triton: script.json says what happens, log.jsonl what did, on its own clock.

Of the script: ttft_s, gap_s between chunks and tokens_per_chunk; spread stretches both, by up to so much, from one
request to the next; fail_every ends a request with an error after two chunks; in stall_s seconds, stall_at_s after the
first request, nothing is answered. Times in the log are readings of the machine's monotonic clock.
"""

import heapq
import json
import threading
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

DEFAULTS = {
    "ttft_s": 0.05,
    "gap_s": 0.01,
    "tokens_per_chunk": 1,
    "spread": 0.0,
    "fail_every": 0,
    "stall_at_s": 0.0,
    "stall_s": 0.0,
}
#: Requests differ in so many steps, so that percentiles differ from each other.
STEPS = 10


class Request:
    """One answer in the making."""

    def __init__(self, request, number, script):
        self.sender = request.get_response_sender()
        self.id = request.request_id()
        self.number = number
        self.script = script
        self.tokens = int(pb_utils.get_input_tensor_by_name(request, "max_tokens").as_numpy()[0])
        self.stretch = 1 + script["spread"] * (number % STEPS) / STEPS
        self.start = time.perf_counter()
        self.done = 0
        self.times = []

    def due(self):
        """Return when the next chunk is sent."""
        script = self.script
        return self.start + (script["ttft_s"] + len(self.times) * script["gap_s"]) * self.stretch

    def send(self):
        """Send the next chunk; return whether it was the last."""
        new = min(self.script["tokens_per_chunk"], self.tokens - self.done)
        self.done += new
        is_failing = self.script["fail_every"] and self.number % self.script["fail_every"] == 0
        if is_failing and len(self.times) == 2:
            error = pb_utils.TritonError("CUDA out of memory")
            final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            self.sender.send(pb_utils.InferenceResponse(error=error), flags=final)
            return True
        text = np.array([b"word " * new], dtype=object)
        count = np.array([self.done], dtype=np.int32)
        tensors = [pb_utils.Tensor("text_output", text), pb_utils.Tensor("num_output_tokens", count)]
        is_last = self.done >= self.tokens
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if is_last else 0
        self.times.append(time.perf_counter())
        self.sender.send(pb_utils.InferenceResponse(output_tensors=tensors), flags=flags)
        return is_last


class TritonPythonModel:
    """A queue by time, and the thread that empties it."""

    def initialize(self, args):
        """Start the clock."""
        self.folder = Path(args["model_repository"])
        self.log = (self.folder / "log.jsonl").open("a", buffering=1)
        self.script, self.read_at, self.requests, self.first_start = DEFAULTS, None, 0, 0.0
        self.queue, self.news = [], threading.Condition()
        threading.Thread(target=self.work, daemon=True).start()

    def execute(self, requests):
        """Take requests in; another script begins with the next request after it was written."""
        self.read_script()
        for one in requests:
            self.requests += 1
            made = Request(one, self.requests, self.script)
            self.first_start = self.first_start or made.start
            with self.news:
                heapq.heappush(self.queue, (self.unstalled(made.due()), self.requests, made))
                self.news.notify()

    def read_script(self):
        """Read the script, if it is another than before."""
        file = self.folder / "script.json"
        written_at = file.stat().st_mtime_ns if file.is_file() else None
        if written_at != self.read_at:
            self.script = DEFAULTS | json.loads(file.read_text())
            self.read_at, self.requests, self.first_start = written_at, 0, 0.0

    def unstalled(self, planned):
        """Return when something planned happens: at the end of the stall, if it falls into it."""
        begin = self.first_start + self.script["stall_at_s"]
        end = begin + self.script["stall_s"]
        return end if begin <= planned < end else planned

    def work(self):
        """Send every chunk when it is due."""
        while True:
            with self.news:
                while not self.queue or self.queue[0][0] > time.perf_counter():
                    self.news.wait(self.queue[0][0] - time.perf_counter() if self.queue else None)
                _, number, made = heapq.heappop(self.queue)
            if made.send():
                row = {"id": made.id, "start": made.start, "times": made.times, "tokens": made.done}
                self.log.write(json.dumps(row) + "\n")
                continue
            with self.news:
                heapq.heappush(self.queue, (self.unstalled(made.due()), number, made))
