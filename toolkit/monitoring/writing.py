"""The files: what to scrape, when to tell somebody, what to look at, and how to use them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit import files, templating
from toolkit.errors import UsageError
from toolkit.monitoring import rules
from toolkit.monitoring.dashboard import dashboard
from toolkit.monitoring.exported import Exported
from toolkit.monitoring.rules import LeftOut

#: In every file that this module writes; a file without it is somebody else's.
MARK = "Made by `trtk monitoring`"
TEMPLATES = ("prometheus.yml", "alerts.yml", "alerts_test.yml", "README.md")
DASHBOARD = "dashboard.json"
#: Beside prometheus.yml, written by the user: no key is in a file of ours.
KEY_FILE = "api-key"


@dataclass(frozen=True, kw_only=True)
class ScrapeTarget:
    """One exporter."""

    server: str
    job: str  # triton, trtk-gateway, dcgm
    address: str  # host:port
    path: str = "/metrics"
    needs_key: bool = False


@dataclass(frozen=True, kw_only=True)
class Written:
    """The files by name, and what is not in them for want of a metric."""

    texts: Mapping[str, str]
    alerts: int
    panels: int
    left_out: tuple[LeftOut, ...]


def made(targets: Sequence[ScrapeTarget], exported: Exported) -> Written:
    """Return the files for these targets; every series that they read is exported."""
    chosen = rules.chosen(exported)
    board, panels_left_out = dashboard(chosen.exported)
    left_out = (*chosen.left_out, *panels_left_out)
    values = {
        "mark": MARK,
        "jobs": _jobs(targets),
        "key_file": KEY_FILE,
        "recordings": chosen.recordings,
        "alerts": chosen.alerts,
        "left_out": left_out,
        "dashboard_uid": board["uid"],
    }
    texts = {name: templating.render(f"monitoring/{name}.j2", values) for name in TEMPLATES}
    texts[DASHBOARD] = json.dumps(board, indent=2, ensure_ascii=False) + "\n"
    panels = sum(panel["type"] != "row" for panel in board["panels"])
    return Written(texts=texts, alerts=len(chosen.alerts), panels=panels, left_out=left_out)


def _jobs(targets: Sequence[ScrapeTarget]) -> dict[tuple[str, str, bool], list[ScrapeTarget]]:
    """Return the targets by what they have in common: one scrape config each."""
    jobs: dict[tuple[str, str, bool], list[ScrapeTarget]] = {}
    for target in targets:
        jobs.setdefault((target.job, target.path, target.needs_key), []).append(target)
    return jobs


def write(written: Written, folder: Path) -> None:
    """Write the files; one that was not made here is left alone, and named."""
    for name in written.texts:
        path = folder / name
        if path.exists() and (not path.is_file() or MARK not in path.read_text(encoding="utf-8", errors="replace")):
            raise UsageError(
                f"{path} is there and was not made by `trtk monitoring`.", hint="Give another folder with -o."
            )
    with files.disk_errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in written.texts.items():
        files.write_text(folder / name, text)
