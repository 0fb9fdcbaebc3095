"""JSON files of checkpoints, with every fault named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.errors import UsageError


def json_object(path: Path) -> dict[str, Any]:
    """Return a file's JSON object; raises UsageError when it is missing or something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"There is no {path}.", hint="Give a folder that `trtk quantize` made.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not JSON: {error}.", hint="Quantize the model again.") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} is no JSON object.", hint="Quantize the model again.")
    return document
