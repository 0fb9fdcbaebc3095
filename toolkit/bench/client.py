"""The only clock and network of the load test: one event loop, so many requests in flight, a record for each."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import math
import signal
import statistics
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

from toolkit.bench import workload
from toolkit.bench.answer import Answer, ClientLeft, SendFailed
from toolkit.bench.observing import Observer
from toolkit.bench.runs import Run, Snapshot, Watch, unwatched
from toolkit.bench.session import Arrival, Ask, Session
from toolkit.errors import ServerError
from toolkit.specs import LoadProfile, Progress, RequestRecord, no_progress

SNAPSHOT_EVERY_S = 0.25
RECENT_REQUESTS = 200
#: A server that fails so many requests in a row, or three for every slot, is not worth more of them.
FAILURES_IN_A_ROW = 20
#: Warm-up prompts must not be in the server's prefix cache when their measured twins arrive.
WARMUP_SEED = 1_000_003


class Load:
    """One phase of a run: the slots, their records, and what stops them."""

    def __init__(self, profile: LoadProfile, session: Session, arrival: Arrival, *, step: str) -> None:
        self.profile = profile
        self.records: list[RequestRecord] = []
        self.stop_reason: str | None = None
        self.is_interrupted = False
        self._session = session
        self._step = step
        self._due = arrival.due_times(profile)
        self._start = time.perf_counter()
        self._sent = 0
        self._failed = 0
        self._failed_in_a_row = 0
        self._active: set[Answer] = set()
        self._tasks: set[asyncio.Future[Any]] = set()
        self._all_ended = asyncio.Event()
        self._bug: BaseException | None = None
        self._room = asyncio.Semaphore(profile.concurrency) if profile.is_capped else None
        self._wishes = workload.wishes(profile)
        self._busy_s = 0.0
        self._busy_since = 0.0

    def now(self) -> float:
        """Return seconds since the phase started."""
        return time.perf_counter() - self._start

    @property
    def mean_in_flight(self) -> float:
        """Return the mean number of requests in flight, from the counter and not from the records."""
        return self._busy_s / max(self._busy_since, 1e-9)

    async def run(self) -> float:
        """Run every slot to its end; return how long it took."""
        self._start = time.perf_counter()
        if self.profile.is_open:
            self._begin(self._open_loop())
        else:
            for number in range(self.profile.concurrency):
                self._begin(self._slot(number))
        await self._all_ended.wait()
        if self._bug is not None:
            raise self._bug
        return self.now()

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._bug = task.exception()
            self.interrupt()
        if not self._tasks:
            self._all_ended.set()

    def interrupt(self) -> None:
        """Stop now; what is in flight is recorded as cancelled."""
        self.is_interrupted = True
        for task in self._tasks:
            task.cancel()

    async def _slot(self, number: int) -> None:
        free_at = self.profile.ramp_s * number / self.profile.concurrency
        await self._until(free_at)
        while not self._is_over():
            record = await self._one(self._next_ask(), free_at)
            free_at = record.end_s

    async def _open_loop(self) -> None:
        """Send each request when it is due, however many are still unanswered."""
        end_s = math.inf if self.profile.duration_s is None else self.profile.duration_s
        for due in self._due:
            if due is None or due >= end_s or self._is_over():
                break
            await self._until(due)
            if not self._is_over():
                self._begin(self._when_there_is_room(self._next_ask(), due))

    async def _when_there_is_room(self, ask: Ask, due: float) -> None:
        if self._room is None:
            await self._one(ask, due)
            return
        asked_at = self.now()
        async with self._room:
            await self._one(ask, due, held_s=self.now() - asked_at)

    async def _until(self, at_s: float) -> None:
        if (left_s := at_s - self.now()) > 0:
            await asyncio.sleep(left_s)

    def _is_over(self) -> bool:
        if self.stop_reason or self.is_interrupted:
            return True
        if self.profile.duration_s is not None:
            return self.now() >= self.profile.duration_s
        return self._sent >= (self.profile.requests or 0)

    def _next_ask(self) -> Ask:
        profile, index = self.profile, self._sent
        self._sent += 1
        wish = next(self._wishes)
        return Ask(
            request_id=f"{profile.seed}-{index}",
            prompt=wish.prompt,
            max_tokens=wish.max_tokens,
            seed=profile.seed + index,
            input_tokens=wish.input_tokens,
            leaves_after=wish.leaves_after,
        )

    async def _one(self, ask: Ask, scheduled: float, *, held_s: float = 0.0) -> RequestRecord:
        answer, outcome, failure = Answer(leaves_after=ask.leaves_after), "ok", None
        self._count(answer, is_start=True)
        try:
            await asyncio.wait_for(self._session.send(ask, answer), self.profile.timeout_s)
            if not (answer.chunks or answer.counts):
                failure = SendFailed("bad_response", "The answer is empty.")
        except asyncio.TimeoutError:
            failure = SendFailed("timeout", f"No whole answer within {self.profile.timeout_s:g} s.")
        except ClientLeft:
            outcome = "cancelled"
        except SendFailed as error:
            failure = error
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._count(answer, is_start=False)
            record = self._record(ask, answer, scheduled, held_s=held_s, outcome=outcome, failure=failure)
            self.records.append(record)
        self._judge(failure)
        return record

    def _count(self, answer: Answer, *, is_start: bool) -> None:
        now = self.now()
        self._busy_s += len(self._active) * (now - self._busy_since)
        self._busy_since = now
        (self._active.add if is_start else self._active.discard)(answer)

    def _judge(self, failure: SendFailed | None) -> None:
        self._failed_in_a_row = 0 if failure is None else self._failed_in_a_row + 1
        if failure is None:
            return
        self._failed += 1
        if self.stop_reason:
            return
        if failure.kind == "connection_refused":
            self.stop_reason = f"The server at {self.profile.url} stopped answering after {self.now():.1f} s: {failure}"
        elif self._failed_in_a_row >= max(FAILURES_IN_A_ROW, 3 * self.profile.concurrency):
            self.stop_reason = f"{self._failed_in_a_row} requests in a row failed, the last with: {failure}"

    def _record(
        self,
        ask: Ask,
        answer: Answer,
        scheduled: float,
        *,
        held_s: float,
        outcome: str,
        failure: SendFailed | None,
    ) -> RequestRecord:
        def since_start(reading: float | None) -> float | None:
            return None if reading is None else reading - self._start

        output_tokens, first_tokens, source = answer.tokens(ask.max_tokens)
        end, sent = since_start(answer.end), since_start(answer.sent)
        return RequestRecord(
            request_id=ask.request_id,
            scheduled_s=scheduled,
            sent_s=scheduled if sent is None else sent,
            first_token_s=since_start(answer.first),
            last_token_s=since_start(answer.last),
            end_s=self.now() if end is None or failure else end,
            input_tokens=ask.input_tokens if answer.input_tokens is None else answer.input_tokens,
            output_tokens=output_tokens,
            first_chunk_tokens=first_tokens,
            chunks=answer.chunks,
            outcome="failed" if failure else outcome,
            error=failure.kind if failure else None,
            message=str(failure) if failure else None,
            asked_tokens=ask.max_tokens,
            held_s=held_s,
            token_count_source=source,
        )

    def snapshot(self) -> Snapshot:
        """Say how far the phase is."""
        recent = [
            1000 * (record.first_token_s - record.scheduled_s)
            for record in self.records[-RECENT_REQUESTS:]
            if record.first_token_s is not None
        ]
        elapsed, seconds = self.now(), self.profile.duration_s
        return Snapshot(
            step=self._step,
            elapsed_s=elapsed,
            done=float(len(self.records)) if seconds is None else min(elapsed, seconds),
            total=float(self.profile.requests or 0) if seconds is None else seconds,
            completed=len(self.records),
            in_flight=len(self._active),
            failed=self._failed,
            output_tokens=sum(record.output_tokens for record in self.records)
            + sum(answer.chunks for answer in self._active),
            ttft_p50_ms=statistics.median(recent) if recent else None,
        )


def warm_up_of(profile: LoadProfile) -> LoadProfile:
    """Return the closed loop that goes before: as many requests as asked for, of other prompts."""
    return replace(
        profile,
        requests=profile.warmup_requests,
        duration_s=None,
        seed=profile.seed + WARMUP_SEED,
        arrival="closed",
        stages=(),
        is_capped=False,
        ramp_s=0.0,
        cancel_share=0.0,
        concurrency=min(profile.concurrency, profile.warmup_requests),
    )


async def measured(
    profile: LoadProfile,
    session: Session,
    arrival: Arrival,
    *,
    report: Progress = no_progress,
    watch: Watch = unwatched,
) -> Run:
    """Warm up, then run PROFILE and return what happened."""
    if profile.warmup_requests:
        warming = warm_up_of(profile)
        load = await _phase(Load(warming, session, arrival, step="warm-up"), report, watch)
        _need_one_answer(load)
    earlier = await session.statistics()
    started_at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    cpu_s = time.process_time()
    load = Load(profile, session, arrival, step="load test")
    observer = Observer(profile.metrics_url)
    observer.start()
    await _phase(load, report, watch)
    cpu_s, duration_s = time.process_time() - cpu_s, max(load.now(), 1e-9)
    observed = observer.stop()
    later = None if load.stop_reason else await session.statistics()
    models = (
        {name: counts.since(earlier[name]) if name in earlier else counts for name, counts in later.items()}
        if earlier is not None and later is not None
        else None
    )
    from toolkit.specs import to_json

    return Run(
        profile=replace(profile, model=session.facts.model),
        records=tuple(load.records),
        started_at=started_at,
        duration_s=duration_s,
        is_interrupted=load.is_interrupted,
        stop_reason=load.stop_reason,
        mean_in_flight=load.mean_in_flight,
        client_cpu_s=cpu_s,
        is_input_counted=session.facts.has_input_count,
        server={**to_json(session.facts), "models": to_json(models)},
        observed=observed,
    )


def _need_one_answer(load: Load) -> None:
    if load.is_interrupted:
        raise KeyboardInterrupt
    if all(record.outcome != "ok" for record in load.records):
        last = load.records[-1]
        raise ServerError(
            f"No warm-up request to {load.profile.model} at {load.profile.url} was answered: {last.message}",
            hint="See `trtk logs`; `--warmup 0` measures a failing server all the same.",
        )


async def _phase(load: Load, report: Progress, watch: Watch) -> Load:
    ticker = asyncio.ensure_future(_tick(load, report, watch))
    with _interruptible(load):
        try:
            await load.run()
        finally:
            ticker.cancel()
            _tell(load, report, watch)
    return load


async def _tick(load: Load, report: Progress, watch: Watch) -> None:
    while True:
        _tell(load, report, watch)
        await asyncio.sleep(SNAPSHOT_EVERY_S)


def _tell(load: Load, report: Progress, watch: Watch) -> None:
    seen = load.snapshot()
    report(seen.step, seen.done, seen.total)
    watch(seen)


@contextlib.contextmanager
def _interruptible(load: Load) -> Iterator[None]:
    """Make Ctrl-C end the phase, so that what was measured is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, load.interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
