"""A load test: what is sent, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of an open loop: the rate goes evenly from one value to the other."""

    start_rps: float
    end_rps: float
    duration_s: float | None = None  # None: until the run ends


@dataclass(frozen=True, kw_only=True)
class TraceRow:
    """One request of a trace."""

    due_s: float | None  # from the trace's beginning; None: it has no times
    input_tokens: int
    output_tokens: int
    prompt: str = ""
    blocks: tuple[int, ...] = ()  # names of the prompt's blocks: the same name is the same text


@dataclass(frozen=True, kw_only=True)
class LoadProfile:
    """A load test, fully said: the same profile and seed send the same requests."""

    url: str  # grpc://host:port, http://host:port, openai+http://host:port/v1
    model: str = "ensemble"  # openai: empty is the first that the server lists
    endpoint: str = "chat"  # openai: chat, completions
    concurrency: int = 1  # closed loop: requests in flight; open loop: at most so many, where is_capped
    requests: int | None = None  # stop after so many; exactly one of requests and duration_s is set
    duration_s: float | None = None
    isl: int = 128  # input tokens asked for
    osl: int = 64  # output tokens asked for
    isl_lengths: str = ""  # a distribution in place of isl: normal:512,128
    osl_lengths: str = ""
    shared_prefix: float = 0.0  # share of the input tokens with which every prompt begins alike
    cancel_share: float = 0.0  # of the requests: their clients go away in the middle of the answer
    trace: tuple[TraceRow, ...] = ()  # what is replayed
    is_streaming: bool = True
    is_eos_ignored: bool = True  # generate exactly osl tokens where the server can
    warmup_requests: int = 0
    prompts: tuple[str, ...] = ()  # empty: made from the seed
    tokenizer: str = ""  # a tokenizer.json; made prompts then have exactly isl tokens; empty: about so many
    turns: str = ""  # of a conversation: 4, uniform:2,8; concurrency and rate then count conversations; empty: one
    think_s: str = ""  # between an answer and the next turn: 2, lognormal:5,0.8; empty: none
    processes: int = 1  # of the client, which share one plan of sends; 0: as many as the warm-up shows are needed
    timeout_s: float = 120.0
    seed: int = 0
    arrival: str = "closed"  # the load shape: closed, constant, poisson, gamma, trace
    stages: tuple[Stage, ...] = ()  # open loop: how fast requests come
    burstiness: float = 1.0  # gamma: the coefficient of variation of the gaps; 1 is Poisson
    is_capped: bool = False  # open loop: a request that would be one too many waits, and its clock runs
    ramp_s: float = 0.0  # closed loop: the slots begin evenly over so many seconds
    metrics_url: str = ""  # where the server's metrics are read meanwhile; empty: they are not
    slos: tuple[str, ...] = ()  # ttft=500ms@p95
    price: str | None = None  # 0.35EUR/h
    price_source: str = ""  # who asks for it and since when; empty: the user said it
    utilization: float | None = None  # share of the paid time in which the server is as busy as in the run

    @property
    def is_open(self) -> bool:
        """Whether requests come by the clock, and not when another has ended."""
        return self.arrival != "closed"


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """One request of a load test. Times are seconds since the run's start, on the client's monotonic clock."""

    request_id: str
    scheduled_s: float
    sent_s: float
    first_token_s: float | None
    last_token_s: float | None
    end_s: float
    input_tokens: int
    output_tokens: int
    first_chunk_tokens: int
    chunks: int
    outcome: str  # ok, failed, cancelled
    error: str | None = None  # kind, for the count by kind
    message: str | None = None  # what the server or the network said
    asked_tokens: int = 0  # output tokens that were asked for
    held_s: float = 0.0  # a capped open loop: how long it waited for room, after it was due
    token_count_source: str = "server"  # where output_tokens comes from: server, chunks, tokenizer
    turn: int = 1  # of its conversation


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """What a load test found; `document` has exactly the keys of report.json."""

    document: Mapping[str, Any]
    records: tuple[RequestRecord, ...]
