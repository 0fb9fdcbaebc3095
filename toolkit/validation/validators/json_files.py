"""JSON files are JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator

from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, outcome


def run(folder: Folder) -> Outcome:
    """Parse every JSON file."""
    names = folder.named("*.json")

    def problems(name: str) -> Iterator[Problem]:
        try:
            json.loads(folder.text(name))
        except (ValueError, RecursionError) as error:
            yield Problem(place=name, says=f"it is no JSON: {error}")

    return outcome(len(names), (problem for name in names for problem in problems(name)))


VALIDATOR = Validator(name="json", title="JSON files", order=11, run=run)
