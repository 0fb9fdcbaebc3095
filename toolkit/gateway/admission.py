"""Places for requests: so many run, the others wait in line, one line for each key, taken in turn."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator

from toolkit.gateway import refusals
from toolkit.gateway.config import Limits
from toolkit.gateway.refusals import Refusal

#: Weight of the newest duration in the running mean.
NEWEST = 0.2
LONGEST_RETRY_S = 60.0


class Admission:
    """Gives places in turn by key, so that one key's long line does not hold up another's first request."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._mean_s = 1.0
        self.running = 0

    @property
    def waiting(self) -> int:
        """Return how many requests wait."""
        return sum(map(len, self._lines.values()))

    @contextlib.asynccontextmanager
    async def place(self, key: str) -> AsyncIterator[None]:
        """Hold a place; raises Refusal with a Retry-After where the line is full or does not move."""
        if self.running < self._limits.running and not self._lines:
            self.running += 1
        else:
            await self._wait(key)
        began = time.monotonic()
        try:
            yield
        finally:
            self._mean_s += NEWEST * (time.monotonic() - began - self._mean_s)
            self._give_on()

    async def _wait(self, key: str) -> None:
        line = self._lines.get(key, deque())
        if len(line) >= self._limits.waiting:
            raise self._refusal(f"{len(line)} of your requests wait already")
        self._lines[key] = line
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            await asyncio.wait_for(asyncio.shield(turn), self._limits.waiting_s)
        except asyncio.TimeoutError as error:
            self._leave(key, turn)
            raise self._refusal(f"no place became free in {self._limits.waiting_s:g} s") from error
        except asyncio.CancelledError:
            self._leave(key, turn)
            raise

    def _leave(self, key: str, turn: asyncio.Future[None]) -> None:
        if turn.done():  # the place came in the same moment
            self._give_on()
            return
        line = self._lines[key]
        line.remove(turn)
        if not line:
            del self._lines[key]

    def _give_on(self) -> None:
        """Hand the place to the next key's first request, or back."""
        if not self._lines:
            self.running -= 1
            return
        key, line = self._lines.popitem(last=False)
        line.popleft().set_result(None)
        if line:
            self._lines[key] = line  # at the end: the other keys come first

    def _refusal(self, why: str) -> Refusal:
        wait_s = self._mean_s * (1 + self.waiting) / max(1, self._limits.running)
        return Refusal(
            refusals.TOO_MANY,
            f"Too many requests: {self.running} run, and {why}. Try again later.",
            retry_after_s=min(LONGEST_RETRY_S, wait_s),
        )
