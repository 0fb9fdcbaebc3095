"""What is written holds: links lead somewhere, commands exist, and the command reference is the program's own help."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.cli import COMMANDS

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "engines", "model_repository", "reports", "docker")
#: Commands of the design that no release has yet; a page may name them as planned.
PLANNED: set[str] = set()
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
#: A command stands at the start of a line of code (perhaps behind a prompt), or of a word in backticks.
COMMAND = re.compile(r"(?:^\s*(?:\$ )?|`)trtk ([a-z]+)\b", re.MULTILINE)


def pages():
    """Every page that git would keep: builds and reports below engines/ and reports/ are not ours."""
    found = [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).glob("*.md"))]
    return sorted([*found, *(ROOT / "docs").glob("*/*.md")])


PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))


@PAGES
def test_every_relative_link_resolves(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = [target for target in LINK.findall(text) if "://" not in target and not target.startswith("mailto:")]

    assert [target for target in links if not (page.parent / target).exists()] == []


@PAGES
def test_every_command_that_is_written_exists(page):
    written = set(COMMAND.findall(page.read_text(encoding="utf-8")))

    assert written - PLANNED - set(COMMANDS) == set()


def test_what_is_planned_does_not_exist_yet():
    assert set(COMMANDS) & PLANNED == set()


def test_the_command_reference_is_current():
    done = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"], check=False, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
