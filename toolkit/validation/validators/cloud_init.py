"""`cloud-init schema`: user data of machines that are made."""

from __future__ import annotations

from toolkit.validation import programs
from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, not_installed, outcome

MARK = "#cloud-config"


def run(folder: Folder) -> Outcome:
    """Validate every file that begins as cloud-init wants it."""
    names = [name for name in folder.files if not name.endswith(".tf") and folder.text(name).startswith(MARK)]
    if not names:
        return Outcome()
    program = programs.found("cloud-init")
    if program is None:
        return not_installed("cloud-init", "apt-get install cloud-init")
    problems = []
    for name in names:
        said = programs.run(program, "schema", "--config-file", name, cwd=folder.path)
        if said.code:
            problems.append(Problem(place=name, says=said.text))
    return outcome(len(names), problems)


VALIDATOR = Validator(name="cloud-init schema", title="user data of machines", order=62, run=run)
