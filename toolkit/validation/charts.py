"""What Helm makes of a chart: by the program where there is one, else by its library."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.validation import helm_library, programs

#: As a user's release would be called; names in a chart are made of it.
RELEASE, NAMESPACE = "release-name", "default"


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One chart's templates with its own values, by path below the folder that is checked."""

    chart: str
    files: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    is_helm_missing: bool = False


def rendered(root: Path, chart: str) -> Rendered:
    """Render a chart of a folder; CHART is relative to it."""
    helm = programs.found("helm")
    if helm is not None:
        return _by_program(helm, root, chart)
    if importlib.util.find_spec("helm_python") is None:
        return Rendered(chart=chart, is_helm_missing=True)
    return _by_library(root, chart)


def _by_program(helm: Path, root: Path, chart: str) -> Rendered:
    with tempfile.TemporaryDirectory() as place:
        line = ("template", RELEASE, str((root / chart).absolute()), "--namespace", NAMESPACE, "--output-dir", place)
        said = programs.run(helm, *line, cwd=root)
        if said.code:
            return Rendered(chart=chart, error=said.text)
        linted = programs.run(helm, "lint", "--strict", "--quiet", str((root / chart).absolute()), cwd=root)
        made = {path: path.read_text(encoding="utf-8") for path in sorted(Path(place).rglob("*.y*ml"))}
        # Below the folder of the chart's name, in templates/.
        files = {_shown(chart, "/".join(path.relative_to(place).parts[1:])): text for path, text in made.items()}
    return Rendered(chart=chart, files=files, error=linted.text if linted.code else "")


def _by_library(root: Path, chart: str) -> Rendered:
    made = helm_library.asked(root / chart, name=RELEASE, namespace=NAMESPACE)
    # Paths begin with the chart's own name; notes are for the terminal.
    files = {
        _shown(chart, name.partition("/")[2]): text
        for name, text in sorted(made.files.items())
        if name.endswith((".yaml", ".yml"))
    }
    return Rendered(chart=chart, files=files, error=made.error or "; ".join(made.warnings))


def _shown(chart: str, name: str) -> str:
    return str(Path(chart) / name)
