"""Answers in the tensors of tensorrt_llm, made cheaply: one message for several tokens, constants made once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from served import refusal, wants_code

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

#: An ensemble holds an answer back until every output that its client wants is there, and a client that names none
#: wants all: what this engine has no value for is sent as zero, as TensorRT-LLM's backend does.
ZEROS = {
    "cum_log_probs": np.zeros((1, 1), np.float32),  # unless they are asked for
    "output_log_probs": np.zeros((1, 1, 1), np.float32),
    "context_logits": np.zeros((1, 1, 1), np.float32),
    "generation_logits": np.zeros((1, 1, 1, 1), np.float32),
    "context_phase_params": np.zeros((1, 1), np.uint8),
    "kv_cache_alloc_new_blocks": np.zeros((1, 1), np.int32),
    "kv_cache_reused_blocks": np.zeros((1, 1), np.int32),
    "kv_cache_alloc_total_blocks": np.zeros((1, 1), np.int32),
    "acceptance_rate": np.zeros((1, 1), np.float32),
    "total_accepted_draft_tokens": np.zeros((1, 1), np.int32),
    "total_draft_tokens": np.zeros((1, 1), np.int32),
}
COUNTS = ("batch_index", "sequence_index", "num_input_tokens", "num_output_tokens")
LOG_PROBS = ("cum_log_probs", "output_log_probs")
TIMES = ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns")


class Reply:
    """The answer to one request: its sender, what it wants to be told, and how many of its rows still run."""

    def __init__(self, sender: Any, request: Any, tensors: dict[str, np.ndarray], rows: int) -> None:
        self.sender = sender
        self.request_id = request.request_id()
        self.has_code = wants_code(request)
        self.open_rows = rows
        self.is_closed = False
        wanted = set(request.requested_output_names())
        self.wants = {name: bool(name in tensors and tensors[name].any()) for name in _ON_REQUEST}
        log_probs = wanted.intersection(LOG_PROBS) if self.wants["return_log_probs"] else set()
        self.changing = sorted(wanted.intersection((*COUNTS, *TIMES)) | log_probs)
        self.constant = [_constant(name) for name in sorted(wanted & ZEROS.keys() - log_probs)]
        self.has_finish_reason = "finish_reason" in wanted
        self.arrival_ns = time.time_ns()

    def send(self, row: Any, tokens: list[int], *, first: int, is_last: bool) -> None:
        """Send tokens of a row, the first of them its FIRST; the last message of the last row closes the answer."""
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
            *(pb_utils.Tensor(name, self._value(name, row, first)) for name in self.changing),
        ]
        if self.has_finish_reason:
            outputs.append(_reason(row.finish_reason))
        self.sender.send(pb_utils.InferenceResponse(outputs), flags=flags)

    def _value(self, name: str, row: Any, first: int) -> np.ndarray:
        if name == "cum_log_probs":
            return np.array([[sum(row.log_probs[: row.sent])]], np.float32)
        if name == "output_log_probs":
            return np.array([[row.log_probs[first : row.sent]]], np.float32)
        if name in TIMES:
            times = (self.arrival_ns, row.scheduled_ns, row.first_token_ns, row.last_token_ns)
            return np.array([[times[TIMES.index(name)] if self.wants["return_perf_metrics"] else 0]], np.int64)
        return np.array([[self._count(name, row)]], np.int32)

    def _count(self, name: str, row: Any) -> int:
        if name == "batch_index":
            return int(row.asked.batch_index)
        if name == "sequence_index":
            return int(row.asked.sequence_index)
        if not self.wants[f"return_{name}"]:
            return 0
        return len(row.asked.prompt) if name == "num_input_tokens" else int(row.sent)

    def fail(self, error: BaseException) -> None:
        """Send an error in place of what is missing."""
        if not self.is_closed:
            self.is_closed = True
            self.sender.send(pb_utils.InferenceResponse(error=refusal(error, has_code=self.has_code)), flags=FINAL)


_ON_REQUEST = ("return_num_input_tokens", "return_num_output_tokens", "return_perf_metrics", "return_log_probs")
_MADE: dict[str, Any] = {}


def _constant(name: str) -> Any:
    if name not in _MADE:
        _MADE[name] = pb_utils.Tensor(name, ZEROS[name])
    return _MADE[name]


def _reason(reason: str) -> Any:
    """Return the tensor that says why a sequence ended; empty while it goes on."""
    key = f"finish_reason {reason}"
    if key not in _MADE:
        _MADE[key] = pb_utils.Tensor("finish_reason", np.array([[reason.encode()]], np.object_))
    return _MADE[key]
