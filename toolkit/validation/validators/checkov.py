"""checkov: security rules for manifests, Dockerfiles and Terraform; checkov.toml says why some findings stay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit import validation
from toolkit.registry import toml_document
from toolkit.validation import programs
from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, not_installed, outcome

FRAMEWORKS = ("kubernetes", "dockerfile", "terraform")
#: Its tree of libraries is large and pins what others use: it wants a virtual environment of its own.
INSTALL = "pipx install checkov (a virtual environment of its own), and put it on the PATH"


def run(folder: Folder) -> Outcome:
    """Run its rules over what they are for."""
    names = {*(one.file for one in folder.objects), *folder.named("*.tf", "Dockerfile", "Dockerfile.*")}
    if not names:
        return Outcome()
    program = programs.found("checkov")
    if program is None:
        return not_installed("checkov", INSTALL)
    frameworks = [word for name in FRAMEWORKS for word in ("--framework", name)]
    options = ("--output", "json", "--quiet", "--compact", "--skip-download")
    said = programs.run(program, "--directory", ".", *frameworks, *options, cwd=folder.path)
    try:
        document = json.loads(said.out)
    except ValueError:
        return outcome(len(names), [Problem(place=".", says=said.text)])
    failed = [one for report in _reports(document) for one in report["results"].get("failed_checks", ())]
    excused = {reason for one in failed if (reason := _reason(one))}
    return Outcome(
        checked=len(names),
        problems=tuple(_problem(one) for one in failed if not _reason(one)),
        not_checked=tuple(sorted(excused)),
    )


def _reports(document: Any) -> Iterator[Mapping[str, Any]]:
    """Yield one report for each framework that found files; none is an object without results."""
    for one in document if isinstance(document, list) else [document]:
        if isinstance(one.get("results"), Mapping):
            yield one


def _problem(one: Mapping[str, Any]) -> Problem:
    place = f"{one['file_path'].lstrip('/')}:{one['file_line_range'][0]} {one['resource']}"
    return Problem(place=place, says=f"{one['check_id']} {one['check_name']}")


def _reason(one: Mapping[str, Any]) -> str:
    """Return why a finding stays as it is; empty where it is a problem."""
    for exception in toml_document(Path(validation.__file__).parent / "checkov.toml")["exception"]:
        if one["check_id"] in exception["checks"] and re.fullmatch(exception["resource"], one["resource"]):
            return f"{one['check_id']}: {exception['reason']}"
    return ""


VALIDATOR = Validator(name="checkov", title="security rules", order=80, run=run)
