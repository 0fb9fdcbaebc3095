"""`trtk deploy --check`: what every offline validator says of an output folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cli import output
from toolkit.errors import PlanInfeasible, UsageError

if TYPE_CHECKING:
    from toolkit.validation import Outcome, Result


def run(folder: Path, *, as_json: bool) -> None:
    """Validate FOLDER, show what was found, and raise PlanInfeasible where something is wrong."""
    from toolkit import validation

    results = validation.examine(folder)
    if not any(result.outcome.checked for result in results):
        raise UsageError(f"{folder} is empty.", hint="`trtk deploy TARGET ENGINE -o DIR` writes one to check.")
    if as_json:
        output.document(_document(folder, results))
    else:
        _show(folder, results)
    problems = [problem for result in results for problem in result.outcome.problems]
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "one problem"
        raise PlanInfeasible(f"{folder} has {count}.", hint="They are above, each with its place.")


def _document(folder: Path, results: Sequence[Result]) -> dict[str, Any]:
    from toolkit.specs import to_json

    return {
        "folder": str(folder),
        "is_right": not any(result.outcome.problems for result in results),
        "checks": [
            {
                "name": result.name,
                "title": result.title,
                "state": result.outcome.state,
                "checked": result.outcome.checked,
                "unit": result.outcome.unit,
                "problems": to_json(result.outcome.problems),
                "not_checked": list(result.outcome.not_checked),
            }
            for result in results
        ],
    }


def _show(folder: Path, results: Sequence[Result]) -> None:
    from toolkit.validation import NOTHING

    shown = [result for result in results if result.outcome.state != NOTHING]
    rows = [(result.title, result.name, _said(result.outcome)) for result in shown]
    output.table(str(folder), ["what", "by", "result"], rows)
    for result in shown:
        for problem in result.outcome.problems:
            output.text(f"{result.name}: {problem.place}: {problem.says}")
    if idle := [result.title for result in results if result.outcome.state == NOTHING]:
        output.note(f"Nothing here of: {', '.join(idle)}.")


def _said(outcome: Outcome) -> str:
    """Return `passed, 12 objects`, with what was not looked at and why: it is never counted as passed."""
    words = [outcome.state]
    if outcome.problems:
        words = [f"{len(outcome.problems)} wrong"]
    if outcome.checked:
        words.append(f"{outcome.unit}: {outcome.checked}")
    said = ", ".join(words)
    if not outcome.not_checked:
        return said
    reasons = "; ".join(outcome.not_checked)
    return f"{said}; not checked: {reasons}" if outcome.checked else f"{said}: {reasons}"
