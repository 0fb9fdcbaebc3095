"""Loading and unloading one model, measured and written down; a model that left is really gone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from toolkit.pool.config import PoolConfig
from toolkit.pool.control import Away, Control, ControlError, waiting_parts
from toolkit.pool.decisions import BROKEN, LOADING, READY, UNLOADED, UNLOADING
from toolkit.pool.journal import Journal
from toolkit.pool.lending import Entry, NotHad
from toolkit.pool.measuring import Measured

SAMPLE_S, POLL_S = 0.2, 0.05
#: How long requests of others than the gateway may go on, how long a model may then take to leave memory, and when
#: it is told again.
DRAIN_TIMEOUT_S = 20.0
UNLOAD_TIMEOUT_S, UNLOAD_RETRY_S = 120.0, 10.0
#: Requests after which a model's peak says what it takes at work.
TELLING_REQUESTS = 64
Measure = Callable[[str], Mapping[str, Measured]]


class Loader:
    """Does what was decided, for one model at a time."""

    def __init__(self, config: PoolConfig, control: Control, journal: Journal, measure: Measure) -> None:
        self._config, self._control, self._journal, self._measure = config, control, journal, measure

    async def load(self, entry: Entry, *, held_bytes: int) -> None:
        """Load a model; what fails is told to who waits, and tried again after a pause. Raises Away."""
        began = time.monotonic()
        why = f"{len(entry.waiting)} waiting" if entry.waiting else "pinned"
        waited_s = round(began - entry.waiting[0].since, 3) if entry.waiting else None
        facts = {"why": why, "waited_s": waited_s, "size_bytes": entry.size_bytes, "held_bytes": held_bytes}
        await self._note("load_begun", entry, **facts)
        entry.state, entry.load_began = LOADING, began
        try:
            async with self._sampled(entry):
                await self._load_parts(entry)
        except Away:
            entry.state = UNLOADED
            await self._note("lost", entry, why="Triton went away while it was loaded")
            raise
        except ControlError as error:
            left = await self._clear(entry)
            await self._failed(entry, f"The model {entry.name!r} could not be loaded: {error}.")
            if left:  # a load that Triton goes on with, say: what it takes is not free
                await self._stays(entry, left)
            return
        await self.measure(entry)
        entry.load_s = round(time.monotonic() - began, 3)
        entry.loads += 1
        entry.base_bytes = entry.now_bytes
        self.is_ready(entry)
        await self._note("loaded", entry, load_s=entry.load_s, size_bytes=entry.size_bytes, **self._figures(entry))

    def is_ready(self, entry: Entry) -> None:
        """Note that a model is there, with no use of it yet."""
        entry.state, entry.resident_since = READY, time.monotonic()
        entry.failures, entry.problem, entry.served = 0, "", 0

    async def unload(self, entry: Entry, why: str) -> None:
        """Unload a model and wait until its memory is free."""
        began = time.monotonic()
        resident_s = round(began - entry.resident_since, 3)
        facts = {"why": why, "worth": round(entry.worth, 3), "served": entry.served, "resident_s": resident_s}
        await self._note("unload_begun", entry, **facts)
        entry.state, entry.is_draining = UNLOADING, False
        left = await self._clear(entry)
        if left:
            await self._stays(entry, left)
            return
        entry.state, entry.now_bytes = UNLOADED, 0
        entry.is_known_at_work |= entry.served >= TELLING_REQUESTS
        facts = self._figures(entry) | {"is_known_at_work": entry.is_known_at_work}
        await self._note("unloaded", entry, unload_s=round(time.monotonic() - began, 3), **facts)

    async def _stays(self, entry: Entry, left: str) -> None:
        entry.state, entry.problem, entry.retry_at = BROKEN, left, time.monotonic() + UNLOAD_RETRY_S
        await self._note("unload_failed", entry, why=left)

    async def measure(self, entry: Entry) -> None:
        """Measure a model's processes."""
        if self._config.is_measured:
            found = await asyncio.to_thread(self._measure, self._config.repository)
            self.noted(entry, found)
            entry.pids = self.living(entry, found)

    def noted(self, entry: Entry, found: Mapping[str, Measured]) -> None:
        """Take a model's part of a measurement."""
        entry.now_bytes = sum(found[part].pss_bytes for part in entry.model.parts if part in found)
        entry.peak_bytes = max(entry.peak_bytes, entry.now_bytes)

    def living(self, entry: Entry, found: Mapping[str, Measured]) -> frozenset[int]:
        """Return the processes of a model that live."""
        return frozenset(pid for part in entry.model.parts if part in found for pid in found[part].pids)

    async def _load_parts(self, entry: Entry) -> None:
        timeout_s = self._config.load_timeout_s
        for part in entry.model.loaded:
            await self._control.load(part, timeout_s=timeout_s)

    @contextlib.asynccontextmanager
    async def _sampled(self, entry: Entry) -> AsyncIterator[None]:
        """Measure again and again meanwhile: loading may take more than what stays."""
        task = asyncio.create_task(self._sample(entry))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _sample(self, entry: Entry) -> None:
        while True:
            await self.measure(entry)
            await asyncio.sleep(SAMPLE_S)

    async def _clear(self, entry: Entry) -> str:
        """Take every part out of Triton; return what is still there after a long time.

        Steps that leave before their ensemble has ended what it still does leave that unfinished for ever.
        """
        model = entry.model
        steps = tuple(part for part in model.parts if part not in model.loaded)
        await self._unload_all(model.loaded)
        await self._gone(model.loaded, timeout_s=DRAIN_TIMEOUT_S)
        await self._unload_all(steps)
        if left := await self._gone(model.holders, timeout_s=UNLOAD_TIMEOUT_S):
            return left
        deadline = time.monotonic() + UNLOAD_TIMEOUT_S
        while (left := await self._alive(entry)) and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
        return left

    async def _unload_all(self, parts: Sequence[str]) -> None:
        for part in parts:
            with contextlib.suppress(ControlError):  # one that is not loaded; what counts is what is there after it
                await self._control.unload(part)

    async def _gone(self, parts: Sequence[str], *, timeout_s: float) -> str:
        """Wait until Triton has none of some parts; return what it still has."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                left = waiting_parts(await self._control.states(), parts)
            except Away:
                left = []  # with Triton go its models
            except ControlError:
                left = list(parts)  # asked again: a machine at its limits may be slow to answer
            if not left or time.monotonic() > deadline:
                return f"Triton still has {', '.join(left)}" if left else ""
            await asyncio.sleep(POLL_S)

    async def _alive(self, entry: Entry) -> str:
        if self._config.is_measured:
            found = await asyncio.to_thread(self._measure, self._config.repository)
            if alive := self.living(entry, found):
                return f"its processes {', '.join(map(str, sorted(alive)))} are still there"
        return ""

    async def _failed(self, entry: Entry, sentence: str) -> None:
        pause_s = entry.failed(sentence, now=time.monotonic())
        told = entry.fail_waiting(NotHad(sentence, retry_after_s=pause_s))
        await self._note("load_failed", entry, why=sentence, told=told, retry_s=pause_s)

    def _figures(self, entry: Entry) -> dict[str, object]:
        model = entry.model
        return {
            "artefact": model.artefact,
            "kv_tokens": model.kv_tokens,
            "base_bytes": entry.base_bytes,
            "peak_bytes": entry.peak_bytes,
        }

    async def _note(self, event: str, entry: Entry, **facts: object) -> None:
        known = {key: value for key, value in facts.items() if value is not None}
        await asyncio.to_thread(lambda: self._journal.write(event, entry.name, **known))
