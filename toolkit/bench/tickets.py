"""Numbers handed out once each: to the one process of a load test, or to several that share them."""

from __future__ import annotations

import contextlib
from typing import Any


class Counter:
    """A number that one process counts up; a multiprocessing Value has the same two names."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = contextlib.nullcontext()

    def get_lock(self) -> contextlib.AbstractContextManager[Any]:
        """Return what keeps others away while it is counted up: nobody else is there."""
        return self._lock


class Tickets:
    """Hands out 0, 1, 2, … up to MOST; None is without end."""

    def __init__(self, most: int | None = None, counter: Any = None) -> None:
        self._most = most
        self._counter = Counter() if counter is None else counter

    @property
    def is_out(self) -> bool:
        """Whether the last is gone."""
        return self._most is not None and self._counter.value >= self._most

    def take(self) -> int | None:
        """Return the next number, or None where the last is gone."""
        with self._counter.get_lock():
            number = int(self._counter.value)
            if self._most is not None and number >= self._most:
                return None
            self._counter.value = number + 1
        return number
