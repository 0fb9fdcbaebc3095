"""checkov: security rules for manifests, Dockerfiles, charts and Terraform; an exception is explained in the file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.validation import programs
from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, not_installed, outcome

FRAMEWORKS = ("kubernetes", "dockerfile", "terraform")
#: Its tree of libraries is large and pins what others use: it wants a virtual environment of its own.
INSTALL = "pipx install checkov (a virtual environment of its own), and put it on the PATH"


def run(folder: Folder) -> Outcome:
    """Run its rules over what they are for."""
    names = [*(one.file for one in folder.objects), *folder.named("*.tf", "Dockerfile", "Dockerfile.*")]
    if not names:
        return Outcome()
    program = programs.found("checkov")
    if program is None:
        return not_installed("checkov", INSTALL)
    frameworks = [word for name in FRAMEWORKS for word in ("--framework", name)]
    said = programs.run(
        program, "--directory", ".", *frameworks, "--output", "json", "--quiet", "--compact", "--skip-download",
        cwd=folder.path,
    )  # fmt: skip
    try:
        document = json.loads(said.out)
    except ValueError:
        return outcome(len(set(names)), [Problem(place=".", says=said.text)])
    reports = document if isinstance(document, list) else [document]
    return outcome(len(set(names)), (problem for report in reports for problem in _failed(report)))


def _failed(report: Mapping[str, Any]) -> Iterator[Problem]:
    for one in report.get("results", {}).get("failed_checks", ()):
        place = f"{one['file_path'].lstrip('/')}:{one['file_line_range'][0]} {one['resource']}"
        yield Problem(place=place, says=f"{one['check_id']} {one['check_name']}")


VALIDATOR = Validator(name="checkov", title="security rules", order=80, run=run)
