"""Where calibrations are kept: a TOML file for each card, engine and recipe, in the user's state folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit import files, workspace
from toolkit.errors import UsageError
from toolkit.registry import toml_document
from toolkit.specs import Calibration, QuantRecipe, from_json, to_json

#: A recipe that was not measured itself runs other kernels than its neighbour.
OTHER_RECIPE_SD = 0.15


def folder() -> Path:
    """Return the folder of calibrations."""
    return workspace.state_dir() / "calibrations"


def path_of(found: Calibration) -> Path:
    """Return where a calibration is kept: the newest of its card, engine and recipe."""
    return folder() / f"{workspace.slug(f'{found.gpu}-{found.engine}-{found.recipe}')}.toml"


def write(found: Calibration) -> Path:
    """Keep a calibration, in the place of an older one."""
    path = path_of(found)
    document = to_json(found)
    tables = {key: document.pop(key) for key in ("points", "versions")}
    lines = [f"{key} = {json.dumps(value)}" for key, value in document.items()]
    lines += [
        "",
        "[versions]",
        *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in tables["versions"].items()),
    ]
    for point in tables["points"]:
        lines += ["", "[[points]]", *(f"{key} = {json.dumps(value)}" for key, value in point.items())]
    files.write_text(path, "\n".join(lines) + "\n")
    return path


def read_all() -> list[Calibration]:
    """Return every calibration that is kept here."""
    return [_read(path) for path in sorted(folder().glob("*.toml"))]


def best_for(gpu: str, recipe: QuantRecipe, *, among: Iterable[Calibration]) -> Calibration | None:
    """Return what says most of a recipe on a card: its own calibration, else that of the nearest weight width."""
    of_card = [found for found in among if found.gpu == gpu]
    own = [found for found in of_card if found.recipe == recipe.name]
    if own:
        return max(own, key=lambda found: found.date)
    if not of_card:
        return None
    nearest = max(of_card, key=lambda found: found.date)
    return replace(nearest, log_sd=(nearest.log_sd**2 + OTHER_RECIPE_SD**2) ** 0.5, bends=())


def _read(path: Path) -> Calibration:
    try:
        document: Any = toml_document(path)
        return from_json(Calibration, document)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{path} is not a calibration: {error}.", hint="Remove it, or measure again with `trtk calibrate`."
        ) from error
