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
from toolkit.validation.pods import pods_of
from toolkit.validation.validator import Outcome, Problem, Validator, not_checked, not_installed, outcome

FRAMEWORKS = ("kubernetes", "dockerfile", "terraform")
#: It reads them in the folder that it looks at: rules to leave out, and Python files to run as rules.
CONFIGS = (".checkov.yaml", ".checkov.yml")
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
    if configured := [name for name in CONFIGS if name in folder.files]:
        return not_checked(f"checkov runs what {configured[0]} names, which may be any program: move that file away")
    frameworks = [word for name in FRAMEWORKS for word in ("--framework", name)]
    options = ("--output", "json", "--quiet", "--compact", "--skip-download")
    said = programs.run(program, "--directory", ".", *frameworks, *options, cwd=folder.path)
    try:
        document = json.loads(said.out)
    except ValueError:
        return outcome(len(names), [Problem(place=".", says=said.text)])
    failed = [one for report in _reports(document) for one in report["results"].get("failed_checks", ())]
    told = [(one, _reason(one, folder)) for one in failed]
    return Outcome(
        checked=len(names),
        problems=tuple(_problem(one) for one, reason in told if not reason),
        not_checked=tuple(sorted({reason for _, reason in told if reason})),
    )


def _reports(document: Any) -> Iterator[Mapping[str, Any]]:
    """Yield one report for each framework that found files; none is an object without results."""
    for one in document if isinstance(document, list) else [document]:
        if isinstance(one.get("results"), Mapping):
            yield one


def _problem(one: Mapping[str, Any]) -> Problem:
    place = f"{one['file_path'].lstrip('/')}:{one['file_line_range'][0]} {one['resource']}"
    return Problem(place=place, says=f"{one['check_id']} {one['check_name']}")


def _reason(one: Mapping[str, Any], folder: Folder) -> str:
    """Return why a finding stays as it is; empty where it is a problem."""
    for exception in toml_document(Path(validation.__file__).parent / "checkov.toml")["exception"]:
        if (
            one["check_id"] in exception["checks"]
            and re.fullmatch(exception["resource"], one["resource"])
            and _has_only_tags_of(exception.get("tags"), one, folder)
        ):
            return f"{one['check_id']}: {exception['reason']}"
    return ""


def _has_only_tags_of(pattern: str | None, one: Mapping[str, Any], folder: Folder) -> bool:
    """Whether the images without a digest in what was found are of that name; no pattern takes every one."""
    if pattern is None:
        return True
    name, (first, last) = one["file_path"].lstrip("/"), one["file_line_range"]
    meant = [it for it in folder.objects if it.file == name and first <= it.line <= last]
    containers = [container for it in meant for pod in pods_of(it) for container in pod.containers()]
    tags = [image for container in containers if "@" not in (image := str(container.get("image", "")))]
    return bool(tags) and all(re.fullmatch(pattern, image) for image in tags)


VALIDATOR = Validator(name="checkov", title="security rules", order=80, run=run)
