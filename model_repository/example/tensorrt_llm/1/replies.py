"""Answers in the tensors of tensorrt_llm, made cheaply: one message for several tokens, constants made once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

#: An ensemble holds an answer back until every output that its client wants is there, and a client that names none
#: wants all: what this engine has no value for is sent as zero, as TensorRT-LLM's backend does.
ZEROS = {
    "cum_log_probs": np.zeros((1, 1), np.float32),
    "output_log_probs": np.zeros((1, 1, 1), np.float32),
    "context_logits": np.zeros((1, 1, 1), np.float32),
    "generation_logits": np.zeros((1, 1, 1, 1), np.float32),
    "sequence_index": np.zeros((1, 1), np.int32),
    "context_phase_params": np.zeros((1, 1), np.uint8),
    "kv_cache_alloc_new_blocks": np.zeros((1, 1), np.int32),
    "kv_cache_reused_blocks": np.zeros((1, 1), np.int32),
    "kv_cache_alloc_total_blocks": np.zeros((1, 1), np.int32),
    "acceptance_rate": np.zeros((1, 1), np.float32),
    "total_accepted_draft_tokens": np.zeros((1, 1), np.int32),
    "total_draft_tokens": np.zeros((1, 1), np.int32),
}
TIMES = ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns")


class Reply:
    """The answer to one request: its sender, what it wants to be told, and how many of its rows still run."""

    def __init__(self, sender: Any, request: Any, tensors: dict[str, np.ndarray], rows: int) -> None:
        self.sender = sender
        self.request_id = request.request_id()
        self.open_rows = rows
        self.is_closed = False
        wanted = set(request.requested_output_names())
        self.wants = {name: bool(name in tensors and tensors[name].any()) for name in _ON_REQUEST}
        self.changing = wanted & {"num_output_tokens", "num_input_tokens", "batch_index", *TIMES}
        self.constant = [_constant(name, dtype) for name, dtype in _dtypes(wanted & ZEROS.keys())]
        self.arrival_ns = time.time_ns()

    def send(self, row: Any, tokens: list[int], *, is_last: bool) -> None:
        """Send tokens of a row; the last message of the last row closes the answer."""
        if self.is_closed:
            return
        self.open_rows -= is_last
        self.is_closed = self.open_rows == 0
        flags = FINAL if self.is_closed else 0
        ids = np.array(tokens, np.int32).reshape(1, 1, -1)
        outputs = [
            pb_utils.Tensor("output_ids", ids),
            pb_utils.Tensor("sequence_length", np.array([[len(tokens)]], np.int32)),
            *self.constant,
            *(self._changing(name, row) for name in self.changing),
        ]
        self.sender.send(pb_utils.InferenceResponse(outputs), flags=flags)

    def _changing(self, name: str, row: Any) -> Any:
        if name == "batch_index":
            return pb_utils.Tensor(name, np.array([[row.index]], np.int32))
        if name == "num_input_tokens":
            count = len(row.asked.prompt) if self.wants["return_num_input_tokens"] else 0
            return pb_utils.Tensor(name, np.array([[count]], np.int32))
        if name == "num_output_tokens":
            count = row.sent if self.wants["return_num_output_tokens"] else 0
            return pb_utils.Tensor(name, np.array([[count]], np.int32))
        times = (self.arrival_ns, row.scheduled_ns, row.first_token_ns, row.last_token_ns)
        value = times[TIMES.index(name)] if self.wants["return_perf_metrics"] else 0
        return pb_utils.Tensor(name, np.array([[value]], np.int64))

    def fail(self, error: Any) -> None:
        """Send an error in place of what is missing."""
        if not self.is_closed:
            self.is_closed = True
            self.sender.send(pb_utils.InferenceResponse(error=error), flags=FINAL)


_ON_REQUEST = ("return_num_input_tokens", "return_num_output_tokens", "return_perf_metrics")
_MADE: dict[str, Any] = {}


def _dtypes(names: set[str]) -> list[tuple[str, np.ndarray]]:
    return [(name, ZEROS[name]) for name in sorted(names)]


def _constant(name: str, value: np.ndarray) -> Any:
    if name not in _MADE:
        _MADE[name] = pb_utils.Tensor(name, value)
    return _MADE[name]
