"""What a plan is asked and what it answers: the workload, the bytes, the speed, the bill."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.specs.plans import Choice, Limits

#: How a prediction is backed, surest first.
MEASURED, CALIBRATED, FITTED, EXTRAPOLATED = "measured", "calibrated", "fitted", "extrapolated"


@dataclass(frozen=True, kw_only=True)
class Range:
    """A number that is not known exactly: 80 % of the truth lies between low and high."""

    low: float
    mid: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What requests look like and how many come; with neither concurrency nor rate, as many as the server takes."""

    isl: float  # input tokens of a request, mean
    osl: float  # output tokens of a request, mean
    isl_max: int  # the longest; of a fixed length, isl itself
    osl_max: int
    isl_cv: float = 0.0  # standard deviation / mean; 0: every request alike
    osl_cv: float = 0.0
    concurrency: int | None = None  # requests in flight, kept up by the clients
    rate_rps: float | None = None  # requests that arrive each second, at the peak
    prefix_share: float = 0.0  # of the input tokens, those found in the KV cache

    @property
    def tokens(self) -> float:
        """Tokens of a whole request, mean."""
        return self.isl + self.osl


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How fast a server is under a workload; times are of a request, throughput of the whole server."""

    ttft_ms: Range
    tpot_ms: Range
    output_tps: Range
    batch: float  # requests that a decoding step serves
    bound_by: str  # compute, bandwidth, kv_cache, communication, overhead, batch_size
    provenance: str  # measured, calibrated, fitted, extrapolated
    assumptions: tuple[str, ...] = ()  # what was taken for granted, a sentence each


@dataclass(frozen=True, kw_only=True)
class MemoryBudget:
    """Bytes of one card, of the fullest rank: the five parts add up to `total`, what a process can allocate."""

    weights: int
    kv_cache: int
    activations: int
    runtime: int
    free: int
    total: int


@dataclass(frozen=True, kw_only=True)
class KvPool:
    """The paged KV cache of one card."""

    bytes_per_token: int
    blocks: int
    tokens_per_block: int
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """What a card is asked to hold and how it is divided up."""

    limits: Limits
    memory: MemoryBudget
    kv: KvPool
    kv_fraction: float  # of what weights, activations and runtime leave
    request_tokens: int  # of the request that `max_concurrency` counts
    max_concurrency: int  # such requests that run at once
    binding: str  # what stops one more: kv_cache, max_batch_size
    scheduler_policy: str = "guaranteed_no_evict"
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PriceOffer:
    """What somebody asks for one GPU and one hour."""

    gpu: str  # in the catalogue
    provider: str
    kind: str  # on-demand, spot
    per_gpu_hour: float
    currency: str
    region: str = ""
    date: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Slo:
    """What a request may take, in milliseconds; None: nothing was asked."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a plan costs: with every GPU, in one currency."""

    currency: str
    per_hour: float
    per_month: float  # of the hours that it is paid for
    per_month_with_extras: Range  # storage, traffic, the machine around the GPU
    per_million_output_tokens: Range | None  # at the load that is served; None where there is no prediction
    per_million_at_duty: Range | None  # the same, idle time paid for
    duty: float  # the share of the time that the load is there
    offer: PriceOffer | None = None
