"""What the bodies of all requests together may take: clients that send slowly hold memory without being answered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class Room:
    """What one request holds of it."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.held_bytes = 0

    def take(self, size: int) -> bool:
        """Hold so many bytes more; False, and nothing is held, where there is no room for them."""
        if self._bodies.held_bytes + size > self._bodies.limit_bytes:
            return False
        self._bodies.held_bytes += size
        self.held_bytes += size
        return True

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._bodies.held_bytes -= self.held_bytes
        self.held_bytes = 0


class Bodies:
    """Counts the bytes that are held for requests."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    @contextlib.contextmanager
    def room(self) -> Iterator[Room]:
        """Yield one request's room; what it holds is given back at the end."""
        made = Room(self)
        try:
            yield made
        finally:
            made.give_back()
