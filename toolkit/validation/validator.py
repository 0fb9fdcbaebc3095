"""What an offline validator is, and what it says of a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from toolkit.validation.folder import Folder

PASSED, FAILED, NOT_CHECKED, NOTHING = "passed", "failed", "not checked", "nothing to check"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong, and where."""

    place: str  # FILE, FILE:LINE, FILE Kind/name spec.replicas
    says: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one validator found: how much it looked at, what is wrong, what it could not look at and why."""

    checked: int = 0
    unit: str = "files"
    problems: tuple[Problem, ...] = ()
    not_checked: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """One of four words; what was not looked at never counts as passed."""
        if self.problems:
            return FAILED
        if self.checked:
            return PASSED
        return NOT_CHECKED if self.not_checked else NOTHING


@dataclass(frozen=True, kw_only=True)
class Validator:
    """One offline validator: a library, a program, or rules of our own."""

    name: str
    title: str  # what it holds the folder to
    order: int
    run: Callable[[Folder], Outcome]


def outcome(checked: int, problems: Iterable[Problem], *, unit: str = "files") -> Outcome:
    """Return what was found in CHECKED things."""
    return Outcome(checked=checked, unit=unit, problems=tuple(problems))


def not_checked(why: str) -> Outcome:
    """Return that nothing was looked at though there is something."""
    return Outcome(not_checked=(why,))


def not_installed(what: str, install: str) -> Outcome:
    """Return that nothing was looked at for want of a program or library."""
    return not_checked(f"{what} is not installed: {install}")
