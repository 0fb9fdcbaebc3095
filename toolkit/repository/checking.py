"""The checks of a repository, one after another: each says what is wrong, and what it could not look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit import registry
from toolkit.errors import PlanInfeasible
from toolkit.repository import seen
from toolkit.repository.check import Check
from toolkit.repository.seen import Seen, Surroundings


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one check found."""

    number: int
    name: str
    title: str
    problems: tuple[str, ...]
    left_out: str  # what it could not look at


def catalogue() -> list[Check]:
    """Return every check, in order."""
    entries = registry.entries_in("toolkit.repository.checks", "CHECK", Check)
    return sorted(entries, key=lambda check: check.number)


def examine(folder: Path, around: Surroundings | None = None) -> list[Result]:
    """Return what every check says of a repository on disk."""
    return _results(seen.in_folder(folder, around or Surroundings()))


def check(folder: Path, around: Surroundings | None = None) -> list[str]:
    """Return what is wrong with a model repository, one sentence each; nothing when it is right."""
    return [problem for result in examine(folder, around) for problem in result.problems]


def need_right(files: Mapping[str, str], around: Surroundings, folder: Path | None = None) -> None:
    """Raise PlanInfeasible where a repository that is about to be written, into FOLDER, has a problem."""
    problems = [problem for result in _results(seen.in_files(files, around, folder)) for problem in result.problems]
    if problems:
        more = f" And {len(problems) - 1} more." if len(problems) > 1 else ""
        raise PlanInfeasible(
            f"The model repository would not be right. {problems[0]}{more}",
            hint="It follows from the plan and from what was set with --set and its like; change that.",
        )


def _results(what: Seen) -> list[Result]:
    return [
        Result(
            number=one.number,
            name=one.name,
            title=one.title,
            problems=tuple(one.run(what)),
            left_out=one.left_out(what),
        )
        for one in catalogue()
    ]
