"""Where calibrations are kept: a TOML file for each card, engine, recipe and model, in the user's state folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit import files, workspace
from toolkit.errors import UsageError
from toolkit.plan.speed.rates import shape_key
from toolkit.registry import toml_document
from toolkit.specs import Calibration, ServerSetup, from_json, to_json

#: A recipe that was not measured itself runs other kernels than its neighbour; another model has other shapes for them;
#: another engine has other kernels and another host in front.
OTHER_RECIPE_SD, OTHER_MODEL_SD, OTHER_ENGINE_SD = 0.15, 0.12, 0.2


def folder() -> Path:
    """Return the folder of calibrations."""
    return workspace.state_dir() / "calibrations"


def path_of(found: Calibration) -> Path:
    """Return where a calibration is kept: the newest of its card, engine, recipe and model."""
    asked = f"{found.gpu}-{found.engine}-{found.recipe}-{found.model}"
    name = workspace.slug(asked)
    if name != asked:  # two models may look alike in a file's name
        name += f"-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
    return folder() / f"{name}.toml"


def write(found: Calibration) -> Path:
    """Keep a calibration, in the place of an older one."""
    path = path_of(found)
    document = to_json(found)
    tables = {key: document.pop(key) for key in ("points", "versions")}
    lines = [f"{key} = {_toml(value)}" for key, value in document.items()]
    lines += [
        "",
        "[versions]",
        *(f"{_toml(key)} = {_toml(value)}" for key, value in tables["versions"].items()),
    ]
    for point in tables["points"]:
        lines += ["", "[[points]]", *(f"{key} = {_toml(value)}" for key, value in point.items())]
    files.write_text(path, "\n".join(lines) + "\n")
    return path


def _toml(value: object) -> str:
    """Return a value as both JSON and TOML write it; TOML has no surrogates for what is beyond 16 bits."""
    return json.dumps(value, ensure_ascii=False)


def read_all() -> list[Calibration]:
    """Return every calibration that is kept here."""
    return [_read(path) for path in sorted(folder().glob("*.toml"))]


def best_for(setup: ServerSetup, *, among: Iterable[Calibration]) -> Calibration | None:
    """Return what says most of a server: of its card's, that of its own model, format and engine if it can be.

    What was measured of others says less: its interval is wider by what differs.
    """
    of_card = [found for found in among if found.gpu == setup.gpu.name]
    if not of_card:
        return None
    newest_first = sorted(of_card, key=lambda found: found.date, reverse=True)
    nearest = min(newest_first, key=lambda found: _distance(found, setup))
    apart = _distance(nearest, setup)
    return replace(nearest, log_sd=math.hypot(nearest.log_sd, apart)) if apart else nearest


def _distance(found: Calibration, setup: ServerSetup) -> float:
    """Return by how much a calibration says less of a server than one of its own would."""
    differs = {
        OTHER_RECIPE_SD: found.quant_algo != (setup.recipe.quant_algo or ""),
        OTHER_MODEL_SD: found.shape != shape_key(setup.model),
        OTHER_ENGINE_SD: bool(setup.engine) and found.engine != setup.engine,
    }
    return math.hypot(*(sd for sd, does in differs.items() if does))


def _read(path: Path) -> Calibration:
    try:
        document: Any = toml_document(path)
        return from_json(Calibration, document)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{path} is not a calibration: {error}.", hint="Remove it, or measure again with `trtk calibrate`."
        ) from error
