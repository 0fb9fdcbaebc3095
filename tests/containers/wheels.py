"""Wheels of what is installed here, packed again: an image is built from the very files that the tests run with."""

import base64
import csv
import hashlib
import importlib.metadata
import io
import re
import zipfile
from pathlib import Path

from packaging.requirements import Requirement


def wheels_of(requirements: list[str], folder: Path) -> Path:
    """Pack the distributions that REQUIREMENTS need, where FOLDER does not have them; return FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    for distribution in needed(requirements).values():
        target = folder / name_of(distribution)
        if not target.is_file():
            part = target.with_suffix(".part")
            pack(distribution, part)
            part.replace(target)
    return folder


def needed(requirements: list[str]) -> dict[str, importlib.metadata.Distribution]:
    """Return the distributions that requirements lead to, extras included."""
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    open_ends = [Requirement(text) for text in requirements]
    while open_ends:
        requirement = open_ends.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        distribution = found.setdefault(name, importlib.metadata.distribution(name))
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in distribution.requires or ():
                further = Requirement(text)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    open_ends.append(further)
    return found


def name_of(distribution: importlib.metadata.Distribution) -> str:
    tag = re.findall(r"^Tag: (\S+)$", distribution.read_text("WHEEL"), re.MULTILINE)[-1]
    name = re.sub(r"[-_.]+", "_", distribution.metadata["Name"])
    return f"{name}-{distribution.version}-{tag}.whl"


def pack(distribution: importlib.metadata.Distribution, target: Path) -> None:
    """Write a wheel; scripts beside the packages are made again by pip from the entry points."""
    rows, record = [], ""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in distribution.files or ():
            name = str(path)
            if name.endswith("RECORD"):
                record = name
                continue
            if (
                name.startswith("..")
                or "__pycache__" in name
                or name.endswith(("INSTALLER", "REQUESTED", "direct_url.json"))
            ):
                continue
            content = Path(path.locate()).read_bytes()
            info = zipfile.ZipInfo(name)
            info.external_attr = (Path(path.locate()).stat().st_mode & 0xFFFF) << 16
            archive.writestr(info, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append((name, f"sha256={digest}", str(len(content))))
        listing = io.StringIO()
        csv.writer(listing, lineterminator="\n").writerows([*rows, (record, "", "")])
        archive.writestr(record, listing.getvalue())
