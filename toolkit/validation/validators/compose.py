"""compose-spec: compose files against the Compose Specification."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, not_installed, outcome

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


def run(folder: Folder) -> Outcome:
    """Parse every compose file."""
    names = folder.named(*NAMES)
    if not names:
        return Outcome()
    try:
        import compose_spec
    except ModuleNotFoundError:
        return not_installed("compose-spec", "pip install 'trtk[deploy]'")

    def problems(name: str) -> Iterator[Problem]:
        try:
            compose_spec.PyCompose.from_yaml(folder.text(name))
        except ValueError as error:
            yield Problem(place=name, says=str(error))

    return outcome(len(names), (problem for name in names for problem in problems(name)))


VALIDATOR = Validator(name="compose-spec", title="compose files", order=30, run=run)
