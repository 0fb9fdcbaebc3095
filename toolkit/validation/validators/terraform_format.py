"""`terraform fmt -check`: what Terraform itself reads, laid out as it would."""

from __future__ import annotations

from toolkit.validation import programs
from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, not_installed

#: Its own `validate` needs the provider, which comes from a registry.
LEFT_OUT = "`terraform validate` needs the provider from registry.terraform.io: run `terraform init` first"


def run(folder: Folder) -> Outcome:
    """Let Terraform (or OpenTofu) read and compare every file."""
    names = folder.named("*.tf", "*.tfvars")
    if not names:
        return Outcome()
    program = programs.found("terraform") or programs.found("tofu")
    if program is None:
        return not_installed("terraform", "https://developer.hashicorp.com/terraform/install")
    said = programs.run(program, "fmt", "-check", "-diff", "-recursive", "-no-color", cwd=folder.path)
    problems = [Problem(place="*.tf", says=said.text)] if said.code else []
    return Outcome(checked=len(names), problems=tuple(problems), not_checked=(LEFT_OUT,))


VALIDATOR = Validator(name="terraform fmt", title="Terraform files, as Terraform reads them", order=61, run=run)
