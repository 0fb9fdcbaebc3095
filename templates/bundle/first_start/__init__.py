"""What a bundle does when it is started inside the serving image; needs that image's python3 and nothing else."""

import json
import sys
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).resolve().parents[1]
INFEASIBLE, MISSING, FAILED = 3, 4, 5


class Refused(Exception):
    """A reason to stop: a sentence, a hint, an exit code."""

    def __init__(self, message: str, *, hint: str, code: int) -> None:
        super().__init__(message)
        self.hint, self.code = hint, code


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - its log is the container's


def document(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(f"{path} is missing.", hint="Copy the whole bundle again.", code=FAILED) from None
    except ValueError as error:
        raise Refused(f"{path} is damaged: {error}.", hint="Copy the bundle again.", code=FAILED) from None
