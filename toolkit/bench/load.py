"""One phase of a run: requests leave when they are due, many in flight on one event loop, and each leaves a record."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from toolkit.bench.answer import Answer, ClientLeft, SendFailed
from toolkit.bench.runs import Outcome, Snapshot
from toolkit.bench.session import Arrival, Ask, Session, Turn
from toolkit.bench.tickets import Tickets
from toolkit.bench.workload import Plan, Wish
from toolkit.specs import LoadProfile, RequestRecord

RECENT_REQUESTS = 200
#: A server that fails so many requests in a row, or three for every slot, is not worth more of them.
FAILURES_IN_A_ROW = 20
#: Who thinks looks up so often, whether the run is over.
THINKING_SLICE_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one of several client processes sends: every so-manieth slot or arrival, of one plan and one clock."""

    requests: Tickets
    number: int = 0
    of: int = 1
    conversations: Tickets = field(default_factory=Tickets)


class Load:
    """The slots, their records, and what stops them."""

    def __init__(
        self,
        plan: Plan,
        session: Session,
        arrival: Arrival,
        *,
        step: str,
        part: Part | None = None,
    ) -> None:
        self.profile: LoadProfile = plan.profile
        self.records: list[RequestRecord] = []
        self.stop_reason: str | None = None
        self.is_interrupted = False
        self._plan = plan
        self._session = session
        self._step = step
        self._part = part or Part(requests=Tickets(self.profile.requests))
        self._due = arrival.due_times(self.profile)
        self._start = time.perf_counter()
        self._failed = 0
        self._failed_in_a_row = 0
        self._output_tokens = 0
        self._active: set[Answer] = set()
        self._tasks: set[asyncio.Future[Any]] = set()
        self._all_ended = asyncio.Event()
        self._bug: BaseException | None = None
        self._room = asyncio.Semaphore(self.profile.concurrency) if self.profile.is_capped else None
        self._busy_s = 0.0
        self._busy_since = 0.0

    def now(self) -> float:
        """Return seconds since the phase started."""
        return time.perf_counter() - self._start

    async def run(self, start: float | None = None) -> Outcome:
        """Run every slot to its end; START is a reading of the machine's monotonic clock, now where it is left out."""
        self._start = time.perf_counter() if start is None else start
        await self._until(0.0)
        cpu_s = time.process_time()
        if self.profile.is_open:
            self._begin(self._open_loop())
        else:
            for number in range(self._part.number, self.profile.concurrency, self._part.of):
                self._begin(self._slot(number))
        await self._all_ended.wait()
        if self._bug is not None:
            raise self._bug
        return Outcome(
            records=tuple(self.records),
            duration_s=max((record.end_s for record in self.records), default=self.now()),
            busy_s=self._busy_s,
            clock_at_start=self._start,
            cpu_s=time.process_time() - cpu_s,
            stop_reason=self.stop_reason,
            is_interrupted=self.is_interrupted,
        )

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

    def give_up(self, reason: str) -> None:
        """Send no more; what is in flight is finished."""
        self.stop_reason = self.stop_reason or reason

    async def _slot(self, number: int) -> None:
        free_at = self.profile.ramp_s * number / self.profile.concurrency
        await self._until(free_at)
        while not self._is_over() and self._part.requests.take() is not None:
            index = self._part.conversations.take() or 0
            free_at = await self._conversation(index, free_at)

    async def _open_loop(self) -> None:
        """Send each request when it is due, however many are still unanswered."""
        end_s = math.inf if self.profile.duration_s is None else self.profile.duration_s
        for index, due in enumerate(self._due):
            if due is None or due >= end_s or self._is_over():
                break
            if index % self._part.of != self._part.number:
                continue
            await self._until(due)
            if self._is_over() or self._part.requests.take() is None:
                break
            self._begin(self._conversation(index, due))

    async def _conversation(self, index: int, due: float) -> float:
        """Ask, and where the plan says so, think and ask on; return when the last answer ended."""
        wish = self._plan[index]
        history: list[Turn] = []
        for number, turn in enumerate((wish, *wish.later), start=1):
            if number > 1:
                due += turn.think_s
                if not await self._has_thought(due):
                    break
            answer = Answer(leaves_after=turn.leaves_after, is_kept=number <= len(wish.later))
            record = await self._when_there_is_room(self._ask(index, number, turn, history), due, answer)
            due = record.end_s
            if record.outcome != "ok":
                break
            history.append(Turn(prompt=turn.prompt, answer=answer.text))
        return due

    async def _has_thought(self, due: float) -> bool:
        """Wait for the moment of a further turn; return whether there is still one to take."""
        if self.profile.duration_s is not None and due >= self.profile.duration_s:
            return False
        while (left_s := due - self.now()) > 0 and not self._is_over():
            await asyncio.sleep(min(left_s, THINKING_SLICE_S))
        return not self._is_over() and self._part.requests.take() is not None

    async def _when_there_is_room(self, ask: Ask, due: float, answer: Answer) -> RequestRecord:
        if self._room is None:
            return await self._one(ask, due, answer)
        asked_at = self.now()
        async with self._room:
            return await self._one(ask, due, answer, held_s=self.now() - asked_at)

    async def _until(self, at_s: float) -> None:
        while (left_s := at_s - self.now()) > 0:  # a loop's timers may be early by half a millisecond
            await asyncio.sleep(left_s)

    def _is_over(self) -> bool:
        if self.stop_reason or self.is_interrupted:
            return True
        if self.profile.duration_s is not None:
            return self.now() >= self.profile.duration_s
        return self._part.requests.is_out

    def _ask(self, index: int, number: int, turn: Wish, history: list[Turn]) -> Ask:
        seed = self.profile.seed
        return Ask(
            request_id=f"{seed}-{index}" if number == 1 else f"{seed}-{index}.{number}",
            prompt=turn.prompt,
            max_tokens=turn.max_tokens,
            seed=seed + index,
            input_tokens=turn.input_tokens,
            history=tuple(history),
            turn=number,
        )

    async def _one(self, ask: Ask, scheduled: float, answer: Answer, *, held_s: float = 0.0) -> RequestRecord:
        outcome, failure = "ok", None
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
            self._output_tokens += record.output_tokens
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
        if failure.kind == "connection_refused":
            self.give_up(f"The server at {self.profile.url} stopped answering after {self.now():.1f} s: {failure}")
        elif self._failed_in_a_row >= max(FAILURES_IN_A_ROW, 3 * self.profile.concurrency // self._part.of):
            self.give_up(f"{self._failed_in_a_row} requests in a row failed, the last with: {failure}")

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
            turn=ask.turn,
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
            output_tokens=self._output_tokens + sum(answer.chunks for answer in self._active),
            ttft_p50_ms=statistics.median(recent) if recent else None,
        )
