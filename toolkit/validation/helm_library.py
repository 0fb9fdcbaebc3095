"""Helm's library, always in a process of its own: it brings Go's runtime, which was seen to crash a crowded process.

Run as `python -m toolkit.validation.helm_library JSON`; `asked` does that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit import processes
from toolkit.validation import programs

#: Of Helm's linter: below it are recommendations, such as an icon.
WARNING = 2
#: Below it is `toolkit`: nothing of the folder that is looked at is imported.
HOME = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What Helm makes of a chart, by its own paths; or why it makes nothing."""

    files: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str = ""


def asked(chart: Path, *, name: str, namespace: str, values: Mapping[str, Any] | None = None) -> Answer:
    """Lint and render a chart with these values over its own."""
    asking = {"chart": str(chart.absolute()), "name": name, "namespace": namespace, "values": dict(values or {})}
    said = programs.run_line([sys.executable, "-m", __spec__.name, json.dumps(asking)], cwd=HOME)
    if said.code:
        return Answer(
            error="\n".join(filter(None, (f"Helm's library ended{processes.ended(said.code)}.", said.text[-500:])))
        )
    try:
        found = json.loads(said.out)
    except ValueError:
        return Answer(error=f"Helm's library said what is no answer: {said.text[-500:]}")
    return Answer(files=found["files"], warnings=tuple(found["warnings"]), error=found["error"])


def _rendered(chart: str, *, name: str, namespace: str, values: dict[str, Any]) -> Answer:
    from helm_python import chart as helm
    from helm_python.errors import HelmError

    try:
        warnings = [one["error"] for one in helm.lint(chart)["messages"] if one["severity"] >= WARNING]
        with helm.Chart.load(chart) as loaded:
            loaded.validate_schema(loaded.merge_values(values))
            files = loaded.render(values=values or None, name=name, namespace=namespace)
    except HelmError as error:
        return Answer(error=str(error))
    return Answer(files=files, warnings=tuple(warnings))


if __name__ == "__main__":
    answer = _rendered(**json.loads(sys.argv[1]))
    json.dump({"files": answer.files, "warnings": answer.warnings, "error": answer.error}, sys.stdout)
