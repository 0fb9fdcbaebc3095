"""Requests in flight: how many the limits let in, what a mean step does then, and what a request waits for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from toolkit.plan.speed.rates import Rates
from toolkit.plan.speed.shapes import Shape
from toolkit.plan.speed.steps import Step, parts_of
from toolkit.specs import ServerSetup, Speculation, Workload

KV_CACHE, BATCH_SIZE, NUM_TOKENS = "kv_cache", "batch_size", "num_tokens"
#: Of a step without prompts, what a token behind the first takes at least.
LEAST_GAP = 0.95
#: An open loop that offers more than the server takes builds a queue; its wait is told for so long a peak.
OVERLOAD_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The most requests that are in flight at once, and which limit says so."""

    requests: float
    limit: str


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A server in its steady state."""

    in_flight: float
    parts: dict[str, float]  # seconds of the mean step
    output_tps: float
    ttft_s: float
    tpot_s: float
    waiting: float = 0.0  # requests that are not let in
    is_overloaded: bool = False

    @property
    def step_s(self) -> float:
        """Return the mean step's seconds."""
        return sum(self.parts.values())


@dataclass(frozen=True, kw_only=True)
class Line:
    """A server and what it is asked, with everything that does not change between steps worked out."""

    setup: ServerSetup
    workload: Workload
    shape: Shape
    rates: Rates
    bends: tuple[tuple[float, float], ...] = ()  # of a calibration
    crowds: tuple[tuple[float, float], ...] = ()  # of a calibration

    @property
    def new_tokens(self) -> float:
        """Prompt tokens of a request that are not in the KV cache; the last one always is computed."""
        return max(1.0, self.workload.isl * (1.0 - self.workload.prefix_share))

    @property
    def accepted(self) -> float:
        """Tokens that a step yields for a sequence, mean."""
        return accepted_tokens(self.setup.speculation)

    @property
    def checked(self) -> float:
        """Tokens that a step passes for a sequence, what drafting them costs included."""
        speculation = self.setup.speculation
        return 1.0 + speculation.draft_tokens if speculation else 1.0

    @property
    def pairs(self) -> float:
        """What the prompt of a request looks at."""
        return self.shape.prompt_pairs(self.new_tokens, known=self.workload.isl - self.new_tokens)


def accepted_tokens(speculation: Speculation | None) -> float:
    """Return 1 + a + a² + ...: each draft token counts if all before it were kept."""
    if speculation is None:
        return 1.0
    return sum(speculation.acceptance**kept for kept in range(speculation.draft_tokens + 1))


def ceiling_of(line: Line) -> Ceiling:
    """Return how many requests the KV cache, max_batch_size and max_num_tokens let in."""
    limits, workload = line.setup.limits, line.workload
    # A step reads what the ends of other requests make room for, and gives every sequence its token.
    per_sequence = line.checked + line.new_tokens / workload.osl * line.accepted
    found = {
        KV_CACHE: line.setup.kv_capacity_tokens / workload.tokens,
        BATCH_SIZE: float(limits.max_batch_size),
        NUM_TOKENS: max(1.0, limits.max_num_tokens / per_sequence),
    }
    limit = min(found, key=lambda name: found[name])
    if limit == BATCH_SIZE and found[KV_CACHE] < found[BATCH_SIZE] + 1:
        limit = KV_CACHE  # the batch is what the cache holds: a larger one would hold no more
    return Ceiling(requests=max(1.0, found[limit]), limit=limit)


def mean_work(line: Line, in_flight: float) -> Step:
    """Return what the mean step does with IN_FLIGHT requests: in it, their share of new prompts is read too."""
    starts = in_flight * line.accepted / line.workload.osl
    return Step(
        sequences=in_flight,
        context=line.workload.isl + line.workload.osl / 2,
        prompt_tokens=starts * line.new_tokens,
        prompt_pairs=starts * line.pairs,
        checked=line.checked,
        prompt_share=min(1.0, starts * math.ceil(line.new_tokens / line.setup.limits.max_num_tokens)),
    )


def mean_step(line: Line, in_flight: float) -> dict[str, float]:
    """Return the seconds of the mean step by part."""
    parts = _with_drafts(line, parts_of(line.shape, line.rates, mean_work(line, in_flight)))
    bend = bend_at(line.bends, in_flight)
    return {part: seconds * bend for part, seconds in parts.items()} if bend != 1.0 else parts


def bend_at(bends: Sequence[tuple[float, float]], in_flight: float) -> float:
    """Return the value between the measured loads, a line over their logarithms; beyond them, that of the last."""
    if not bends:
        return 1.0
    if in_flight <= bends[0][0]:
        return bends[0][1]
    for (low, below), (high, above) in itertools.pairwise(bends):
        if in_flight <= high:
            share = math.log(in_flight / low) / math.log(high / low)
            return below + share * (above - below)
    return bends[-1][1]


def crowd_of(line: Line, in_flight: float) -> float | None:
    """Return the prompts that are read by the time that one is, where clients wait for answers of one length.

    Those that began together end together and begin together again; None where nobody measured it, or where lengths or
    arrivals differ: then prompts meet by chance.
    """
    load = line.workload
    if not line.crowds or load.rate_rps is not None or load.osl_cv or in_flight <= 1:
        return None
    return min(in_flight, bend_at(((1.0, 1.0), *line.crowds), in_flight))


def _with_drafts(line: Line, parts: dict[str, float]) -> dict[str, float]:
    speculation = line.setup.speculation
    if speculation is None:
        return parts
    extra = 1.0 + speculation.draft_tokens * speculation.draft_cost
    return {part: seconds * extra for part, seconds in parts.items()}


def steady(line: Line, in_flight: float) -> Flow:
    """Return the steady state with IN_FLIGHT requests let in, none of them waiting."""
    parts = mean_step(line, in_flight)
    step_s = sum(parts.values())
    steps = line.workload.osl / line.accepted
    request_s = steps * step_s  # in the server; by Little's law, whatever its parts
    gaps = max(1.0, line.workload.osl - 1.0)
    # Prompts that come in a burst may not take the time of the other tokens, which still pass their steps.
    latest_s = request_s - LEAST_GAP * gaps * _gap_s(line, in_flight) if line.workload.osl > 1 else request_s
    ttft_s = min(_first_token_s(line, in_flight, step_s), latest_s)
    tpot_s = (request_s - ttft_s) / gaps if line.workload.osl > 1 else step_s
    return Flow(
        in_flight=in_flight,
        parts=parts,
        output_tps=in_flight * line.accepted / step_s,
        ttft_s=ttft_s,
        tpot_s=tpot_s,
    )


def _gap_s(line: Line, in_flight: float) -> float:
    """Return the seconds of a token in a step that reads no prompt."""
    work = Step(sequences=in_flight, context=line.workload.isl + line.workload.osl / 2, checked=line.checked)
    parts = _with_drafts(line, parts_of(line.shape, line.rates, work))
    return sum(parts.values()) * bend_at(line.bends, in_flight) / line.accepted


def _first_token_s(line: Line, in_flight: float, step_s: float) -> float:
    """Return the wait for the step under way and the steps that read the prompt, beside what the others do."""
    limits = line.setup.limits
    others = in_flight - 1.0
    room = max(limits.max_num_tokens - others * line.checked, limits.max_num_tokens / 4, 1.0)
    crowd = crowd_of(line, in_flight)
    pieces = math.ceil(line.new_tokens * (crowd or 1.0) / room) if line.setup.is_chunked else 1
    # Prompts of others that start in the same steps are read with it.
    beside = crowd - 1.0 if crowd else max(0.0, others) * line.accepted / line.workload.osl * pieces
    step = Step(
        sequences=others / pieces if others < 1 else others,
        context=line.workload.isl + line.workload.osl / 2,
        prompt_tokens=line.new_tokens / pieces + beside / pieces * line.new_tokens,
        prompt_pairs=line.pairs / pieces * (1.0 + beside),
        checked=line.checked,
    )
    reading = pieces * sum(parts_of(line.shape, line.rates, step).values()) * bend_at(line.bends, in_flight)
    return line.rates.request + reading + min(1.0, others) * step_s / 2


def closed_loop(line: Line, ceiling: Ceiling, clients: float) -> Flow:
    """Return the steady state when CLIENTS always have a request each; those beyond the ceiling wait their turn."""
    flow = steady(line, min(clients, ceiling.requests))
    waiting = max(0.0, clients - ceiling.requests)
    return replace(flow, ttft_s=flow.ttft_s + waiting * line.workload.osl / flow.output_tps, waiting=waiting)


def open_loop(line: Line, ceiling: Ceiling, rate_rps: float) -> Flow:
    """Return the steady state when requests come at a rate of their own."""
    full = steady(line, ceiling.requests)
    most = full.output_tps / line.workload.osl
    if rate_rps >= most:
        wait_s = OVERLOAD_S * (1.0 - most / rate_rps)
        return replace(full, ttft_s=full.ttft_s + wait_s, waiting=rate_rps * wait_s, is_overloaded=True)
    in_flight = _in_flight_at(line, ceiling, rate_rps)
    flow = steady(line, max(1.0, in_flight))
    load = in_flight / ceiling.requests
    # Sakasegawa's approximation of many servers' queue, halved: a full batch slows down, it does not stop.
    wait_s = load ** math.sqrt(2.0 * (ceiling.requests + 1.0)) / (1.0 - min(load, 0.999)) / 2.0 / most
    return replace(
        flow,
        in_flight=in_flight,
        output_tps=rate_rps * line.workload.osl,
        ttft_s=flow.ttft_s + wait_s,
        waiting=rate_rps * wait_s,
    )


def _in_flight_at(line: Line, ceiling: Ceiling, rate_rps: float) -> float:
    """Return the requests in flight that serve RATE: throughput rises with them, so halve the interval."""
    low, high = 0.0, ceiling.requests
    for _ in range(30):
        middle = (low + high) / 2
        parts = mean_step(line, middle)
        served = middle * line.accepted / sum(parts.values()) / line.workload.osl
        low, high = (middle, high) if served < rate_rps else (low, middle)
    return high
