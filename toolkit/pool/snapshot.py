"""How a pool is now, in a file: what `trtk ps` reads, without a port and without a key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from toolkit import files


def write(path: Path, document: Any) -> None:
    """Replace the snapshot; it is old in a second, so nothing waits for the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with files.disk_errors_named(path):
        temporary.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        temporary.chmod(0o600)
        temporary.replace(path)


def read(path: Path) -> dict[str, Any] | None:
    """Return the last snapshot; None where there is none."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return document
