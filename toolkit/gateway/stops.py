"""Stop strings: not part of the answer, found wherever they begin, also when they come in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopCutter:
    """Lets text through up to the first stop string; keeps back what may be the beginning of one."""

    __slots__ = ("_held", "_longest", "_stops", "is_done")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.is_done = False  # a stop string was met

    def feed(self, text: str) -> str:
        """Return what may be shown, now that TEXT has come."""
        if not self._stops:
            return text
        if self.is_done:
            return ""
        held = self._held + text
        # The one that is complete first: then it does not matter in which pieces the text comes.
        found = [(at + len(stop), at) for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.is_done, self._held = True, ""
            return held[: min(found)[1]]
        keep = self._beginning(held)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def rest(self) -> str:
        """Return what was kept back, at the end of the text."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Return the length of the longest end of TEXT that some stop string begins with."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[len(text) - length :]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
