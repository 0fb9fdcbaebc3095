"""One answer as it streams in: the hot path of the client, so it stores and computes later."""

from __future__ import annotations

import errno
import itertools


class SendFailed(Exception):
    """A request that did not get its whole answer; `kind` is what errors are counted by."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def not_connected(error: OSError) -> SendFailed:
    """Return why there is no connection: nobody answers, or this machine allows no more."""
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return SendFailed("client_limit", f"The load tester may open no more connections: {error}.")
    return SendFailed("connection_refused", f"{error}.")


class ClientLeft(SendFailed):
    """The client went away on purpose, in the middle of the answer."""

    def __init__(self) -> None:
        super().__init__("left", "The client went away, as it was meant to.")


class Answer:
    """Times are readings of the client's monotonic clock."""

    __slots__ = (
        "chars",
        "chars_at_first_text",
        "chunks",
        "counts",
        "counts_at_first_text",
        "end",
        "first",
        "input_tokens",
        "last",
        "leaves_after",
        "pieces",
        "sent",
        "total",
        "total_at_first_text",
    )

    def __init__(self, *, leaves_after: int = 0, is_kept: bool = False) -> None:
        self.leaves_after = leaves_after  # chunks; 0: the client stays
        self.pieces: list[bytes] | None = [] if is_kept else None  # its text, where a later turn repeats it
        self.sent: float | None = None
        self.first: float | None = None
        self.last: float | None = None
        self.end: float | None = None
        self.chunks = 0
        self.counts: list[int] = []
        self.counts_at_first_text = 0
        self.chars = self.chars_at_first_text = 0
        self.total: int | None = None  # as a server's own usage says it, with each chunk or once at the end
        self.total_at_first_text: int | None = None
        self.input_tokens: int | None = None

    def add(self, now: float, *, has_text: bool, count: int | None, chars: int = 0) -> None:
        """Take one response that arrived at NOW, with the server's own token count where it sends one."""
        self.chars += chars
        if count is not None:
            self.counts.append(count)
        if has_text:
            self.chunks += 1
            self.last = now
            if self.first is None:
                self.first = now
                self.counts_at_first_text = len(self.counts)
                self.chars_at_first_text = chars
                self.total_at_first_text = self.total
            if self.chunks == self.leaves_after:
                raise ClientLeft

    @property
    def text(self) -> str:
        """The answer itself, where it was kept."""
        return b"".join(self.pieces or ()).decode(errors="replace")

    def tokens(self, asked: int) -> tuple[int, int, str]:
        """Return (output tokens, tokens up to and in the first text, where the number comes from)."""
        if not self.counts and self.total is not None:
            return self.total, self.total_at_first_text or self._first_by_length(self.total), "server"
        if not self.counts:
            return self.chunks, min(self.chunks, 1), "chunks"
        counts, first = self.counts, self.counts_at_first_text
        if is_cumulative(counts, asked):
            return counts[-1], counts[first - 1] if first else min(counts[-1], 1), "server"
        return sum(counts), sum(counts[:first]) if first else min(sum(counts), 1), "server"

    def _first_by_length(self, total: int) -> int:
        """Return how many of TOTAL tokens the first chunk had, by its share of the text: the server did not say."""
        if not self.chars or not total:
            return min(total, 1)
        return min(max(1, round(total * self.chars_at_first_text / self.chars)), total)


def is_cumulative(counts: list[int], asked: int) -> bool:
    """Tell running totals from per-response counts: totals never fall, mostly rise, or add up to more than was asked.

    >>> is_cumulative([1, 2, 3, 3], 64), is_cumulative([4, 4, 4, 4], 16), is_cumulative([4, 4], 4)
    (True, False, True)
    """
    steps = list(itertools.pairwise(counts))
    if any(later < earlier for earlier, later in steps):
        return False
    return sum(counts) > asked or 2 * sum(later > earlier for earlier, later in steps) > len(steps)
