"""What a build may take the place of: an earlier build, and nothing else."""

from __future__ import annotations

from pathlib import Path

from toolkit import engine
from toolkit.errors import UsageError
from toolkit.files import need_new_folder
from toolkit.specs import ModelSource

#: Written last; one of them is left where the other was damaged or removed.
MARKS = (engine.MANIFEST, "plan.json")


def need_replaceable(folder: Path, source: ModelSource) -> None:
    """Raise UsageError where a build in FOLDER would take the place of something that `trtk build` did not make."""
    need_new_folder(folder, Path(source.path), example="engines/NAME")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    is_build = any((folder / name).is_file() for name in MARKS) and (folder / engine.CHECKPOINT).is_dir()
    if not is_build:
        raise UsageError(
            f"{folder} is there already and is no folder of `trtk build`, so it is left alone.",
            hint="Give a new folder with -o, or remove that one.",
        )
