"""What Triton's log says about a model that would not load, read from its text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

#: Lines of a long-running server's log that are read from its end.
TAIL_BYTES = 1 << 18
LOAD_FAILED = re.compile(r"\"failed to load '(?P<model>[^']+)' version \d+: (?:\w[\w ]*?: )?(?P<reason>.*)\"$")
NOT_LOADABLE = re.compile(r"\"failed to load model '(?P<model>[^']+)': (?P<reason>.*)\"$")
POLL_FAILED = re.compile(r"\"Poll failed for model directory '(?P<model>[^']+)': (?P<reason>.*)\"$")
ENSEMBLE_FAILED = re.compile(r"\"(?P<reason>[^\"]*ensemble '?(?P<model>[^' ]+)'?[^\"]*depends on [^\"]*)\"$")
STUB_FAILED = re.compile(r"Failed to preinitialize Python stub: (?P<reason>.*?/(?P<model>[^/]+)/\d+/model\.py.*)$")
STUB_DEAD = re.compile(r"Failed to preinitialize Python stub: (?P<reason>.*)")
CONFIG_ERROR = re.compile(r"Error parsing text-format inference\.ModelConfig: (?P<reason>.*)$")
PORT_TAKEN = re.compile(r"Socket '[^']*:(?P<port>\d+)' already in use")
#: What the process says that runs a container.
NOTED = re.compile(r"^trtk: (?P<sentence>.*)$", re.MULTILINE)
#: What `trtk` and a bundle's start.py say inside one when they give up.
GAVE_UP = re.compile(r"^Error: (?P<sentence>.*)$", re.MULTILINE)
#: The first that matches a line wins; the first line that matches any is the cause of what follows it.
FAILURES = (STUB_FAILED, LOAD_FAILED, NOT_LOADABLE, POLL_FAILED, ENSEMBLE_FAILED)
#: Said on every machine without an NVIDIA driver, and inside of every import.
NOT_TELLING = ("CudaDriverHelper has not been initialized", "pinned_memory_manager", "  <frozen importlib")
TRITON_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+ (?P<severity>[IWE]) ")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A model that did not load, and why."""

    model: str
    reason: str


def failure(log: str) -> Failure | None:
    """Return the first model that failed to load, with the first line of the reason."""
    config_error = None
    for line in log.splitlines():
        if found := CONFIG_ERROR.search(line):
            config_error = found["reason"]
        for pattern in FAILURES:
            if found := pattern.search(line):
                reason = _first_line(found["reason"])
                if pattern is POLL_FAILED and config_error:
                    reason = f"{reason}: {config_error}"
                return Failure(model=found["model"], reason=reason)
    return None


def dead_stub(log: str) -> str | None:
    """Return why a stub ended before it could tell Triton 2.51, which then waits for it until the stub timeout."""
    found = STUB_DEAD.search(log)
    return found["reason"].strip() if found else None


def noted(log: str) -> str:
    """Return what was said last about a container, and why what is in it gave up; empty where nothing was."""
    about, inside = NOTED.findall(log), GAVE_UP.findall(log)
    return " ".join([*about[-1:], *inside[-1:]]) if about else ""


def busy_port(log: str) -> int | None:
    """Return the port that somebody took between our check and Triton's."""
    found = PORT_TAKEN.search(log)
    return int(found["port"]) if found else None


def telling_lines(log: str, count: int = 12) -> list[str]:
    """Return the last lines that explain a failure: warnings, errors and what models print; no tables, no routine."""
    return [_shortened(line) for line in log.splitlines() if _is_telling(line)][-count:]


def read_tail(path: Path, *, start: int = 0, size: int = TAIL_BYTES) -> str:
    """Return the end of a log, beginning at START or later; empty when there is none yet."""
    try:
        with path.open("rb") as stream:
            end = path.stat().st_size
            stream.seek(max(start if start <= end else 0, end - size, 0))  # it may have been cut since
            return stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _is_telling(line: str) -> bool:
    if not line.strip() or line[0] in "+|" or any(words in line for words in NOT_TELLING):
        return False
    found = TRITON_LINE.match(line)
    return found is None or found["severity"] != "I"


def _first_line(text: str) -> str:
    # ISO8601 logs carry a message as a JSON string.
    try:
        text = json.loads(f'"{text}"')
    except ValueError:
        text = text.replace("\\n", "\n")
    return text.strip().splitlines()[0].rstrip(".")


def _shortened(line: str) -> str:
    line = line.partition("\\n")[0]
    return line if len(line) <= 300 else line[:297] + "..."
