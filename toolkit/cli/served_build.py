"""Which build a load test asked, where the server is one of trtk's: a report is of a card, a format and a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.specs import DeployedModel, EngineManifest, GpuSpec, LoadProfile

#: Revision of a model that is a folder of the machine that built it.
LOCAL = "local"


def environment_of(profile: LoadProfile) -> dict[str, Any]:
    """Return what a report says of where it was made: the machine, and the build behind the server if it is known."""
    from toolkit import bench as load_tester
    from toolkit.cli import reaching

    behind = reaching.endpoint_behind(profile.url)
    return {**load_tester.environment(), **(_built(Path(behind.spec.folder)) if behind and behind.spec.folder else {})}


def model_of(manifest: EngineManifest) -> str:
    """Return the model's name; of a local folder no path, which tells of the builder's disk and differs on another."""
    name = str(manifest.model.get("name", ""))
    if manifest.model.get("revision") != LOCAL:
        return name
    last = PurePath(name).name
    return PurePath(str(manifest.model.get("path", ""))).name if last in {"", ".."} else last


def _built(folder: Path) -> dict[str, str]:
    from toolkit import engine

    manifest = engine.manifest_of(folder)
    if manifest is None:
        return {}
    try:
        gpu, quant = manifest.plan["gpu"]["name"], manifest.plan["conversion"]["recipe"]["name"]
    except (KeyError, TypeError):  # of a version that planned otherwise: what it served is still measured
        return {}
    return {
        "served_build": manifest.build_id,
        "served_gpu": str(gpu),
        "served_model": model_of(manifest),
        "served_quant": str(quant),
    }


def need_same(document: Mapping[str, Any], model: DeployedModel, gpu: GpuSpec, *, report: Path) -> None:
    """Raise PlanInfeasible where a report says that it is of another model, format or card than what is deployed."""
    from toolkit.errors import PlanInfeasible

    said = document.get("environment") or {}
    ours = {"served_model": model.model, "served_quant": model.quant, "served_gpu": gpu.name}
    other = {name: said[name] for name, value in ours.items() if said.get(name, value) != value}
    if other:
        theirs = ", ".join(f"{name.removeprefix('served_')} {value}" for name, value in other.items())
        raise PlanInfeasible(
            f"{report} was measured on {theirs}; {model.folder} has {', '.join(ours[name] for name in other)}.",
            hint="Measure this build on its card with `trtk bench`, or leave --report out for the planner's word.",
        )
