"""The pool at work: lends models to requests, and has done what is decided, one load or unload at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import MissingError
from toolkit.pool import decisions, ledger, measuring, snapshot
from toolkit.pool.config import PoolConfig
from toolkit.pool.control import Away, Control, ControlError
from toolkit.pool.decisions import BROKEN, FAILED, HOLDS_MEMORY, LOADING, READY, UNLOADED, Load, Refuse, Unload, Wait
from toolkit.pool.journal import Journal
from toolkit.pool.lending import Entry, NotHad, Waiter
from toolkit.pool.loading import Loader, Measure

WATCH_S = 1.0
MIB = 1 << 20


class Pool:
    """Lends the models of one Triton."""

    def __init__(self, config: PoolConfig, control: Control, *, measure: Measure = measuring.by_model) -> None:
        self.config = config
        self._control, self._measure = control, measure
        self._entries = ledger.entries(config)
        self._journal = Journal(Path(config.journal))
        self._loader = Loader(config, control, self._journal, measure)
        self._floor = 0.0
        self._changed = asyncio.Event()
        self._is_known = False  # what Triton holds was asked since it was started
        self._tasks: list[asyncio.Task[None]] = []
        self._shown = ""

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        sizes = {name: entry.size_bytes for name, entry in self._entries.items()}
        self._journal.write("started", models=list(sizes), sizes_bytes=sizes, limit_bytes=self.config.memory_bytes)
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._watch())]
        for task in self._tasks:
            task.add_done_callback(end_with)

    async def close(self) -> None:
        """End the work; models stay as they are, since their server ends too."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._journal.write("ended")
        self._journal.close()

    def entries(self) -> Sequence[Entry]:
        """Return every model, in the order they were named."""
        return list(self._entries.values())

    @contextlib.asynccontextmanager
    async def lend(self, name: str, *, key: str = "") -> AsyncIterator[str]:
        """Yield the Triton model to call once it is loaded; raises KeyError or NotHad.

        KEY is whose request it is: each has a line of its own for each model, so that one cannot fill it for all.
        """
        entry = self._entries[name]
        if entry.lends:
            entry.take(floor=self._floor, at=time.time())
        else:
            await self._wait_for(entry, key)
        try:
            yield name
        finally:
            self._give_back(entry)

    def _give_back(self, entry: Entry) -> None:
        entry.in_flight -= 1
        if not entry.in_flight:
            self._changed.set()

    async def _wait_for(self, entry: Entry, key: str) -> None:
        now, limit_s = time.monotonic(), self.config.queue_timeout_s
        if entry.state == FAILED and now < entry.retry_at:
            raise NotHad(entry.problem, retry_after_s=entry.retry_at - now)
        in_line = sum(waiter.key == key for waiter in entry.waiting)
        if in_line >= self.config.queue:
            words = f"{in_line} of your requests wait for the model {entry.name!r} already."
            raise NotHad(words, retry_after_s=self._expected_s(entry))
        waiter = Waiter(since=now, turn=asyncio.get_running_loop().create_future(), key=key)
        entry.waiting.append(waiter)
        self._changed.set()
        try:
            await asyncio.wait_for(asyncio.shield(waiter.turn), limit_s)
        except asyncio.TimeoutError as error:
            self._leave(entry, waiter)
            words = f"The model {entry.name!r} was not loaded in {limit_s:g} s: the device is busy with others."
            raise NotHad(words, retry_after_s=self._expected_s(entry)) from error
        except asyncio.CancelledError:
            self._leave(entry, waiter)
            raise

    def _leave(self, entry: Entry, waiter: Waiter) -> None:
        if waiter in entry.waiting:
            entry.waiting.remove(waiter)
            waiter.turn.cancel()
        elif waiter.turn.done() and not waiter.turn.cancelled() and not waiter.turn.exception():
            self._give_back(entry)  # its turn came in the same moment
        self._changed.set()

    def _expected_s(self, entry: Entry) -> float:
        """Return in about how many seconds a model is there."""
        now = time.monotonic()
        if entry.state == LOADING:
            return entry.cold_start_s - (now - entry.load_began)
        ahead = [one for one in self._entries.values() if one.waiting and one is not entry and one.state != READY]
        decided = decisions.decide(self._as_decided(), now)
        until = decided.until if isinstance(decided, Wait) and decided.until else now
        return until - now + entry.cold_start_s + sum(one.cold_start_s for one in ahead)

    def _grant(self, entry: Entry) -> None:
        while entry.lends and entry.waiting:
            waiter = entry.waiting.popleft()
            if not waiter.turn.done():
                entry.take(floor=self._floor, at=time.time())
                waiter.turn.set_result(None)

    def _as_decided(self) -> decisions.Pool:
        return decisions.Pool(
            models=[entry.as_decided() for entry in self._entries.values()],
            limit_bytes=self.config.memory_bytes,
            min_residency_s=self.config.min_residency_s,
        )

    async def _work(self) -> None:
        while True:
            self._changed.clear()
            if not self._is_known and not await self._look():
                await asyncio.sleep(WATCH_S)
                continue
            decided = decisions.decide(self._as_decided(), time.monotonic())
            # What is to leave takes nobody new, from this very moment.
            leaving = {decided.name} if isinstance(decided, Unload) else set()
            self._drain(getattr(decided, "draining", frozenset()) | leaving)
            self.show()
            if isinstance(decided, Wait):
                await self._something_changes(decided.until)
            else:
                await self._do(decided)

    async def _do(self, decided: Load | Unload | Refuse) -> None:
        entry = self._entries[decided.name]
        if isinstance(decided, Refuse):
            self._refuse(entry, decided)
        elif isinstance(decided, Unload):
            self._floor = max(self._floor, entry.worth)
            await self._loader.unload(entry, decided.why)
        else:
            try:
                await self._loader.load(entry, held_bytes=self._as_decided().held_bytes)
            except Away:
                self._is_known = False
            self._grant(entry)  # before anything is decided: who waited for it is who it was loaded for

    def _refuse(self, entry: Entry, decided: Refuse) -> None:
        sentence = (
            f"The model {entry.name!r} takes {decided.needed_bytes // MIB} MiB, and beside the pinned ones there are"
            f" {decided.available_bytes // MIB} of {self.config.memory_bytes // MIB} MiB."
        )
        pause_s = entry.failed(sentence, now=time.monotonic())
        told = entry.fail_waiting(NotHad(sentence, retry_after_s=pause_s))
        self._journal.write("load_failed", entry.name, why=sentence, told=told, retry_s=pause_s)

    async def _something_changes(self, until: float | None) -> None:
        timeout_s = None if until is None else max(0.0, until - time.monotonic()) + 0.01
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)

    def _drain(self, names: frozenset[str]) -> None:
        for entry in self._entries.values():
            entry.is_draining = entry.name in names
            self._grant(entry)

    async def _look(self) -> bool:
        """Take over what Triton holds: after a start of its own, or of this process; False while it is away."""
        try:
            states = await self._control.states()
        except ControlError:
            return False
        for entry in self._entries.values():
            loaded = [part for part in entry.model.parts if states.get(part) == "READY"]
            if len(loaded) == len(entry.model.parts) and entry.state != READY:
                await self._loader.measure(entry)
                self._loader.is_ready(entry)
                self._journal.write("found", entry.name, now_bytes=entry.now_bytes)
            elif len(loaded) < len(entry.model.parts) and entry.state in HOLDS_MEMORY:
                self._lose(entry, "Triton was started again", is_whole=not loaded)
            elif loaded and entry.state != READY:
                self._lose(entry, f"Triton has only {', '.join(loaded)} of it", is_whole=False)
        self._is_known = True
        return True

    def _lose(self, entry: Entry, why: str, *, is_whole: bool) -> None:
        entry.state, entry.problem = (UNLOADED if is_whole else BROKEN), why
        self._journal.write("lost" if is_whole else "broken", entry.name, why=why)
        self._changed.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            before = {name for name, entry in self._entries.items() if entry.state == READY}
            try:
                states = await self._control.states()
            except ControlError:
                self._is_known = False
                self._changed.set()
                continue
            found = await asyncio.to_thread(self._measure, self.config.repository) if self.config.is_measured else {}
            for name in before:
                self._look_after(self._entries[name], states, found)
            self.show()

    def _look_after(self, entry: Entry, states: Mapping[str, str], found: Mapping[str, measuring.Measured]) -> None:
        if entry.state != READY:
            return
        if any(states.get(part) != "READY" for part in entry.model.parts):
            self._is_known = False
            self._changed.set()
            return
        if not self.config.is_measured:
            return
        size_bytes = entry.size_bytes
        self._loader.noted(entry, found)
        if entry.size_bytes > size_bytes:
            self._journal.write("grew", entry.name, size_bytes=entry.size_bytes, was_bytes=size_bytes)
            self._changed.set()
        if dead := entry.pids - self._loader.living(entry, found):
            pids = ", ".join(map(str, sorted(dead)))
            self._lose(entry, f"its process {pids} died", is_whole=False)

    def show(self) -> None:
        """Write how it is now, for `trtk ps`."""
        shown: dict[str, Any] = {
            "limit_bytes": self.config.memory_bytes,
            "held_bytes": self._as_decided().held_bytes,
            "is_triton_there": self._is_known,
            "models": [entry.shown() for entry in self._entries.values()],
        }
        if str(shown) != self._shown:
            self._shown = str(shown)
            with contextlib.suppress(MissingError):  # a full disk costs `trtk ps` its news, and nobody a model
                snapshot.write(Path(self.config.snapshot), shown | {"at": round(time.time(), 3)})


def end_with(task: asyncio.Task[None]) -> None:
    """End this process where the pool's work broke: it is started again, and a pool that does nothing is worse."""
    if not task.cancelled() and (error := task.exception()):
        with contextlib.suppress(OSError):  # the log's disk may be full
            traceback.print_exception(error)
        os.kill(os.getpid(), signal.SIGTERM)
