"""What a check of a repository is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from toolkit.repository.seen import Seen


def nothing(seen: Seen) -> str:
    """Leave nothing unchecked."""
    del seen
    return ""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that a protobuf parser does not see."""

    number: int  # of the list in docs/repositories.md
    name: str
    title: str
    run: Callable[[Seen], Iterable[str]]  # a sentence for each problem
    left_out: Callable[[Seen], str] = nothing  # what it could not look at, and what it would take
