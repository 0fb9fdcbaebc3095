"""python-hcl2: Terraform files parse."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, not_installed, outcome


def run(folder: Folder) -> Outcome:
    """Parse every file."""
    names = folder.named("*.tf", "*.tfvars")
    if not names:
        return Outcome()
    try:
        import hcl2
        import lark
    except ModuleNotFoundError:
        return not_installed("python-hcl2", "pip install 'trtk[deploy]'")

    def problems(name: str) -> Iterator[Problem]:
        try:
            hcl2.loads(folder.text(name))
        except lark.exceptions.LarkError as error:
            yield Problem(place=f"{name}:{getattr(error, 'line', '?')}", says=str(error).partition("\n")[0])

    return outcome(len(names), (problem for name in names for problem in problems(name)))


VALIDATOR = Validator(name="python-hcl2", title="Terraform files", order=60, run=run)
