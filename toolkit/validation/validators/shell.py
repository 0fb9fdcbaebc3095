"""shellcheck: shell scripts and batch scripts."""

from __future__ import annotations

import json

from toolkit.validation import programs
from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, not_installed, outcome

SHELLS = ("sh", "bash", "dash")


def run(folder: Folder) -> Outcome:
    """Check every script, by its name or by its first line."""
    names = [name for name in folder.files if name.endswith((".sh", ".sbatch", ".bash")) or _is_script(folder, name)]
    if not names:
        return Outcome()
    shellcheck = programs.found("shellcheck")
    if shellcheck is None:
        return not_installed("shellcheck", "pip install 'trtk[deploy]'")
    said = programs.run(shellcheck, "--norc", "--format=json1", "--severity=style", "--", *names, cwd=folder.path)
    try:
        comments = json.loads(said.out)["comments"]
    except (ValueError, KeyError):
        return outcome(len(names), [Problem(place=names[0], says=said.text)])
    return outcome(
        len(names),
        [Problem(place=f"{one['file']}:{one['line']}", says=f"SC{one['code']} {one['message']}") for one in comments],
    )


def _is_script(folder: Folder, name: str) -> bool:
    if "." in name.rsplit("/", maxsplit=1)[-1]:
        return False
    first, _, _ = folder.text(name).partition("\n")
    return first.startswith("#!") and first.replace("/", " ").split()[-1] in SHELLS


VALIDATOR = Validator(name="shellcheck", title="shell scripts", order=40, run=run)
