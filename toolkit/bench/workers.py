"""A load from several processes: one plan of sends, one clock, and records that come together at the end.

Each process has a connection, an event loop and a part of the plan: every so-manieth arrival of an open loop, or slots
of a closed one, whose requests are numbered by counters that all share. The monotonic clock is the machine's, so that
all begin at one moment. Ctrl-C reaches the parent alone, which tells the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import time
from dataclasses import dataclass
from typing import Any

from toolkit.bench import loops
from toolkit.bench.load import Load, Part
from toolkit.bench.runs import Outcome, Snapshot
from toolkit.bench.session import Arrival, Protocol
from toolkit.bench.tickets import Tickets
from toolkit.bench.workload import Plan
from toolkit.errors import ServerError, TrtkError

#: From the last process being ready to the first send: longer than the word to begin needs to reach them all.
BEGIN_AFTER_S = 0.1
SNAPSHOT_EVERY_S = 0.25
END_TIMEOUT_S = 5.0
READY, SEEN, DONE, FAILED = "ready", "seen", "done", "failed"
BEGIN, GIVE_UP, INTERRUPT = "begin", "give up", "interrupt"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process is started with."""

    plan: Plan
    protocol: Protocol
    arrival: Arrival
    part: Part
    step: str


class Worker:
    """The parent's side of one process."""

    def __init__(self, context: Any, job: Job) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, job), name=f"load-{job.part.number}", daemon=True)
        self.process.start()
        theirs.close()
        self.seen: Snapshot | None = None
        self.outcome: Outcome | None = None
        self.failure: TrtkError | None = None
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()

    def tell(self, *message: Any) -> None:
        """Say something; a process that is gone is noticed where it is read from."""
        try:
            self.pipe.send(message)
        except OSError:
            return

    def take(self) -> None:
        """Read what it says."""
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            kind, value = FAILED, None
        if kind == SEEN:
            self.seen = value
        elif kind == DONE:
            self.outcome = value
        elif kind == FAILED:
            self.failure = value
        self.ready.set()
        if kind in {DONE, FAILED}:
            asyncio.get_running_loop().remove_reader(self.pipe.fileno())
            self.ended.set()

    def close(self) -> None:
        """End the process, if it has not ended."""
        self.process.join(timeout=END_TIMEOUT_S if self.outcome else 0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


class Workers:
    """Several processes that look like one load from outside."""

    def __init__(self, plan: Plan, protocol: Protocol, arrival: Arrival, *, step: str, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        # Kept: a lock's name is gone with the last of its objects here, and processes look it up when they start.
        self._shared = requests, conversations = (
            Tickets(plan.profile.requests, context.Value("q", 0)),
            Tickets(None, context.Value("q", 0)),
        )
        self._profile = plan.profile
        self._step = step
        self._started_at = time.perf_counter()
        self._is_interrupted = False
        self._reason: str | None = None
        self._all = [
            Worker(
                context,
                Job(
                    plan=plan,
                    protocol=protocol,
                    arrival=arrival,
                    part=Part(requests=requests, number=number, of=count, conversations=conversations),
                    step=step,
                ),
            )
            for number in range(count)
        ]

    def interrupt(self) -> None:
        """Stop now."""
        self._is_interrupted = True
        for worker in self._all:
            worker.tell(INTERRUPT, None)

    async def __aenter__(self) -> Workers:
        """Wait until all are connected: what they ask a server to know it better is no part of the load."""
        try:
            for worker in self._all:
                asyncio.get_running_loop().add_reader(worker.pipe.fileno(), worker.take)
            await asyncio.gather(*(worker.ready.wait() for worker in self._all))
            self._need_all()
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        for worker in self._all:
            asyncio.get_running_loop().remove_reader(worker.pipe.fileno())
            worker.close()

    async def run(self) -> Outcome:
        """Begin together, and return what all did."""
        self._started_at = time.perf_counter() + BEGIN_AFTER_S
        for worker in self._all:
            worker.tell(BEGIN, self._started_at)
        await asyncio.gather(*(self._to_its_end(number, worker) for number, worker in enumerate(self._all, 1)))
        return self._outcome()

    def _need_all(self) -> None:
        for worker in self._all:
            if worker.failure is not None:
                raise worker.failure
            if worker.ended.is_set():
                raise ServerError(f"A client process ended before it began, with exit code {worker.process.exitcode}.")

    async def _to_its_end(self, number: int, worker: Worker) -> None:
        await worker.ended.wait()
        reason = worker.outcome.stop_reason if worker.outcome else None
        if worker.outcome is None:
            worker.process.join(timeout=END_TIMEOUT_S)
            reason = (
                f"Client process {number} of {len(self._all)} ended with exit code {worker.process.exitcode}; its "
                "requests are missing."
            )
        if reason and not self._reason:
            self._reason = reason
            for other in self._all:
                other.tell(GIVE_UP, reason)

    def _outcome(self) -> Outcome:
        parts = [worker.outcome for worker in self._all if worker.outcome]
        records = [record for part in parts for record in part.records]
        return Outcome(
            records=tuple(sorted(records, key=lambda record: record.end_s)),
            duration_s=max((part.duration_s for part in parts), default=0.0),
            busy_s=sum(part.busy_s for part in parts),
            clock_at_start=self._started_at,
            cpu_s=sum(part.cpu_s for part in parts),
            stop_reason=self._reason,
            is_interrupted=self._is_interrupted,
            processes=len(self._all),
        )

    def snapshot(self) -> Snapshot:
        """Say how far all are together."""
        seen = [worker.seen for worker in self._all if worker.seen]
        seconds = self._profile.duration_s
        elapsed = max(0.0, time.perf_counter() - self._started_at)
        completed = sum(one.completed for one in seen)
        medians = sorted(one.ttft_p50_ms for one in seen if one.ttft_p50_ms is not None)
        return Snapshot(
            step=self._step,
            elapsed_s=elapsed,
            done=float(completed) if seconds is None else min(elapsed, seconds),
            total=float(self._profile.requests or 0) if seconds is None else seconds,
            completed=completed,
            in_flight=sum(one.in_flight for one in seen),
            failed=sum(one.failed for one in seen),
            output_tokens=sum(one.output_tokens for one in seen),
            ttft_p50_ms=medians[len(medians) // 2] if medians else None,
        )


def work(pipe: Any, job: Job) -> None:
    """Be one of the processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and says what to do
    loops.run(_work(pipe, job))


async def _work(pipe: Any, job: Job) -> None:
    try:
        session = await job.protocol.connect(job.plan.profile)
    except TrtkError as error:
        pipe.send((FAILED, error))
        return
    load = Load(job.plan, session, job.arrival, step=job.step, part=job.part)
    begin: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(pipe.fileno(), _obey, pipe, load, begin)
    pipe.send((READY, None))
    try:
        with contextlib.suppress(asyncio.CancelledError, BrokenPipeError):  # nobody is left to tell
            start = await begin
            ticker = asyncio.ensure_future(_tell(pipe, load))
            outcome = await load.run(start)
            ticker.cancel()
            pipe.send((SEEN, load.snapshot()))
            pipe.send((DONE, outcome))
    finally:
        await session.close()


def _obey(pipe: Any, load: Load, begin: asyncio.Future[float]) -> None:
    try:
        what, value = pipe.recv()
    except (EOFError, OSError):  # the parent is gone
        what, value = INTERRUPT, None
        asyncio.get_running_loop().remove_reader(pipe.fileno())
    if what == BEGIN:
        begin.set_result(value)
    elif what == GIVE_UP:
        load.give_up(value)
    else:
        begin.cancel()  # where it has not begun, it never will
        load.interrupt()


async def _tell(pipe: Any, load: Load) -> None:
    with contextlib.suppress(BrokenPipeError):
        while True:
            await asyncio.sleep(SNAPSHOT_EVERY_S)
            pipe.send((SEEN, load.snapshot()))
