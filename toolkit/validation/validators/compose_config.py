"""`docker compose config`: Docker's own reading of a compose file, without a daemon."""

from __future__ import annotations

from pathlib import Path

from toolkit.validation import programs
from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, not_installed, outcome
from toolkit.validation.validators.compose import NAMES


def run(folder: Folder) -> Outcome:
    """Let Docker read every compose file; variables take the values of .env.example beside it."""
    names = folder.named(*NAMES)
    if not names:
        return Outcome()
    line = _compose(folder)
    if line is None:
        return not_installed("docker compose", "https://docs.docker.com/compose/install")
    problems = []
    for name in names:
        example = (folder.path / name).with_name(".env.example")
        values = ("--env-file", example.name) if example.is_file() else ()
        arguments = (*line, *values, "-f", Path(name).name, "config", "--quiet")
        said = programs.run_line(arguments, cwd=(folder.path / name).parent)
        if said.code:
            problems.append(Problem(place=name, says=said.text))
    return outcome(len(names), problems)


def _compose(folder: Folder) -> tuple[str, ...] | None:
    """Return how docker compose is called here, as a plugin or as a program of its own."""
    docker = programs.found("docker")
    if docker and programs.run(docker, "compose", "version", cwd=folder.path).code == 0:
        return (str(docker), "compose")
    alone = programs.found("docker-compose")
    return (str(alone),) if alone else None


VALIDATOR = Validator(name="docker compose config", title="compose files, as Docker reads them", order=31, run=run)
