"""Are the files those that were built?"""

import hashlib
from pathlib import Path
from typing import Any

from first_start import BUNDLE, FAILED, Refused, document

#: Written by Python beside the code that it runs.
PASSED_OVER = "__pycache__"


def records_of(path: Path) -> list[Any]:
    """Return the files that a manifest or an engine's record lists."""
    made = document(path)
    files = made.get("files") if isinstance(made, dict) else None
    if not isinstance(files, list):
        raise Refused(f"{path} is no manifest.", hint="Copy the bundle again.", code=FAILED)
    return files


def verify(folder: Path, records: list[Any], *, below: tuple[str, ...] = ("",)) -> None:
    """Raise unless every file is as its record says; BELOW names the beginnings of the paths to look at."""
    for record in [record for record in records if record["path"].startswith(below)]:
        path = folder / record["path"]
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise damaged(path, "is missing")
        if size != record["size_bytes"]:
            raise damaged(path, f"has {size} bytes instead of {record['size_bytes']}")
        if (found := sha256(path)) != record["sha256"]:
            raise damaged(path, f"has the sha256 {found[:16]}… instead of {record['sha256'][:16]}…")


def damaged(path: Path, what: str) -> Refused:
    return Refused(
        f"{path} is not what was built: it {what}.",
        hint="Copy the bundle again; --no-verify starts it as it is.",
        code=FAILED,
    )


def need_nothing_added(records: list[Any]) -> None:
    """Raise for a file in the model repository that nobody built: Triton would run it."""
    known = {record["path"] for record in records}
    for path in sorted((BUNDLE / "model_repository").rglob("*")):
        if path.is_file() and PASSED_OVER not in path.parts and str(path.relative_to(BUNDLE)) not in known:
            raise damaged(path, "was not there")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()
