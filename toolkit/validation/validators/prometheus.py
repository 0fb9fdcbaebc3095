"""promtool: Prometheus' configuration, its rules, and the tests of its rules."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from toolkit.validation import programs
from toolkit.validation.folder import Folder
from toolkit.validation.shapes import mapping
from toolkit.validation.validator import Outcome, Problem, Validator, not_installed, outcome

#: A key of a document → what promtool does with such a file.
CHECKS = {
    "scrape_configs": ("check", "config"),
    "groups": ("check", "rules", "--lint-fatal"),
    "tests": ("test", "rules"),
}


def run(folder: Folder) -> Outcome:
    """Check and test what Prometheus reads, the rules of PrometheusRule objects too."""
    files = [(one.file, arguments) for one in folder.documents if (arguments := _arguments(one.content))]
    rules = [one for one in folder.all_objects if one.kind == "PrometheusRule"]
    if not files and not rules:
        return Outcome()
    promtool = programs.found("promtool")
    if promtool is None:
        return not_installed("promtool", "apt-get install prometheus, or https://prometheus.io/download")

    def found() -> Iterator[Problem]:
        import yaml

        for name, arguments in files:
            path = folder.path / name
            said = programs.run(promtool, *arguments, f"./{path.name}", cwd=path.parent)
            if said.code:
                yield Problem(place=name, says=said.text)
        for one in rules:
            with tempfile.TemporaryDirectory() as place:
                path = Path(place) / "rules.yml"
                path.write_text(yaml.safe_dump(dict(mapping(one.document.get("spec")))), encoding="utf-8")
                said = programs.run(promtool, *CHECKS["groups"], path.name, cwd=path.parent)
            if said.code:
                yield Problem(place=one.place, says=said.text)

    return outcome(len(files) + len(rules), found())


def _arguments(content: object) -> tuple[str, ...] | None:
    if not isinstance(content, dict) or "kind" in content:
        return None
    return next((arguments for key, arguments in CHECKS.items() if isinstance(content.get(key), list)), None)


VALIDATOR = Validator(name="promtool", title="Prometheus' configuration, rules and their tests", order=50, run=run)
