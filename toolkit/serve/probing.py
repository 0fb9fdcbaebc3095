"""Asking a running server for one token now and then: readiness alone does not prove that it answers."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import ServerError
from toolkit.serve import backend, triton_http
from toolkit.serve.records import Record

#: How often a backend is asked about what only it can see.
LOOK_EVERY_S = 2.0
#: A busy server may keep one request waiting for long; it shows in the meantime that it answers others.
PROBE_TIMEOUT_S = 60.0
#: Probes in a row without an answer, or with an error, after which a server is given up.
PATIENCE = 2
#: Requests that a model was done with; of a decoupled one, those that it has merely taken.
DONE = re.compile(r'^nv_inference_request_success\{model="(?P<model>[^"]+)",[^}]*\} (?P<count>\S+)$', re.MULTILINE)
#: Answers that an engine has finished, and the steps that it took.
FINISHED = re.compile(r"^nv_llm_output_token_len_count\{[^}]*\} (?P<count>\S+)$", re.MULTILINE)
STEPS = re.compile(
    r'^nv_trt_llm_general_metrics\{[^}]*general_type="iteration_counter"[^}]*\} (?P<count>\S+)$', re.MULTILINE
)
DECOUPLED = re.compile(r"\bdecoupled\s*:\s*true\b", re.IGNORECASE)


class _Asking(threading.Thread):
    """A probe under way: who watches a server has other things to see until it is answered."""

    def __init__(self, look: Callable[[], str]) -> None:
        super().__init__(name="probe", daemon=True)
        self.look, self.said = look, "The probe of the server ended in an error of trtk."
        self.start()

    def run(self) -> None:
        """Ask; `said` is what is wrong, empty where nothing is."""
        self.said = self.look()


@dataclass
class Prober:
    """Probes one server; requests of others that were answered since the last look are as good as a probe."""

    record: Record
    looked_s: float = field(default_factory=time.monotonic)
    probed_s: float = field(default_factory=time.monotonic)
    answered: float = 0.0
    steps: float = 0.0
    failures: int = 0
    is_doubted: bool = False
    asking: _Asking | None = None

    def fault(self) -> str:
        """Return why the server is given up; empty while it answers, or when it is not yet time to ask."""
        spec, now = self.record.endpoint.spec, time.monotonic()
        if now > self.looked_s + LOOK_EVERY_S:
            problem = backend.pick(spec.backend).look(self.record.server_id).problem
            if problem and self.is_doubted:
                return f"{spec.name}: {problem}."
            # A server that is just ending says itself at the next turn how; its container is gone before it is.
            self.is_doubted = bool(problem)
            self.looked_s = self.looked_s if problem else now
        if self.asking is None and spec.probe_model and spec.probe_every_s and now > self.probed_s + spec.probe_every_s:
            self.asking = _Asking(lambda: self._look(spec.probe_model))
        if self.asking is None or self.asking.is_alive():
            return ""
        said, self.asking = self.asking.said, None
        self.probed_s = now
        self.failures = self.failures + 1 if said else 0
        return said if self.failures >= PATIENCE else ""

    def _look(self, model: str) -> str:
        before, steps_before = self.answered, self.steps
        self.answered, self.steps = self._counts(model)
        if self.answered > before:
            return ""
        try:
            triton_http.generate_one_token(self.record.endpoint.http_url, model, timeout_s=PROBE_TIMEOUT_S)
        except ServerError as error:
            answered, steps = self._counts(model)
            # A full queue turns a probe away at once: what counts are the steps since the last look.
            is_stepping = (isinstance(error, triton_http.NoAnswer) and steps > self.steps) or (
                isinstance(error, triton_http.QueueFull) and steps > steps_before
            )
            return "" if answered > before or is_stepping else str(error)
        self.answered, _ = self._counts(model)
        return ""

    def _counts(self, model: str) -> tuple[float, float]:
        """Return how many answers and how many steps there were."""
        text = triton_http.text(self.record.endpoint.metrics_url)
        answers = sum(float(one["count"]) for one in FINISHED.finditer(text))
        if not self._is_decoupled(model):
            answers += sum(float(one["count"]) for one in DONE.finditer(text) if one["model"] == model)
        return answers, sum(float(one["count"]) for one in STEPS.finditer(text))

    def _is_decoupled(self, model: str) -> bool:
        config = Path(self.record.endpoint.spec.repository) / model / "config.pbtxt"
        with contextlib.suppress(OSError):
            return bool(DECOUPLED.search(config.read_text(encoding="utf-8", errors="replace")))
        return True
