"""Which tests run on one worker: those of a file, and those of files that share something costly."""

import functools
import re
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]
#: Made once for all of a unit, where each worker would make its own.
DEMO, DOCKER = "the demo model's engine and its server", "the Docker daemon"
#: The fixtures of tests/e2e/conftest.py, as arguments of a test or of a fixture.
USES_DEMO = re.compile(r"^def \w+\([^)]*\b(built|served)\b", re.MULTILINE)
USES_DOCKER = re.compile(r"\bpytest\.mark\.docker\b")
#: Begun first, so that short ones are left for whoever is done early.
LONG = (DEMO, DOCKER, "tests/e2e/", "tests/pool/", "tests/serve/")


def unit_of(nodeid: str) -> str:
    """Return the unit of a test."""
    return _unit_of_file(nodeid.split("::", 1)[0])


@functools.cache
def _unit_of_file(path: str) -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    if USES_DOCKER.search(text):
        return DOCKER
    return DEMO if path.startswith("tests/e2e/") and USES_DEMO.search(text) else path


def place_of(nodeid: str) -> int:
    """Return when a test's unit begins; equal ones keep their order."""
    unit = unit_of(nodeid)
    return next((place for place, beginning in enumerate(LONG) if unit.startswith(beginning)), len(LONG))


class ByUnit(LoadScopeScheduling):
    """Gives each worker a whole unit, and the next one when it is nearly through."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)
