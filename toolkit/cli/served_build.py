"""Which build a load test asked, where the server is one of trtk's: a report is of a card, a format and a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.specs import DeployedModel, GpuSpec, LoadProfile


def environment_of(profile: LoadProfile) -> dict[str, Any]:
    """Return what a report says of where it was made: the machine, and the build behind the server if it is known."""
    from toolkit import bench as load_tester
    from toolkit.cli import reaching

    behind = reaching.endpoint_behind(profile.url)
    return {**load_tester.environment(), **(_built(Path(behind.spec.folder)) if behind and behind.spec.folder else {})}


def _built(folder: Path) -> dict[str, str]:
    from toolkit import engine

    manifest = engine.manifest_of(folder)
    if manifest is None:
        return {}
    plan = manifest.plan
    return {
        "served_build": manifest.build_id,
        "served_gpu": str(plan["gpu"]["name"]),
        "served_model": Path(str(manifest.model["name"])).name,
        "served_quant": str(plan["conversion"]["recipe"]["name"]),
    }


def need_same(report: Path, model: DeployedModel, gpu: GpuSpec) -> None:
    """Raise PlanInfeasible where a report says that it is of another model, format or card than what is deployed."""
    from toolkit.bench import reading
    from toolkit.errors import PlanInfeasible

    said = (reading.read(report).document or {}).get("environment") or {}
    ours = {"served_model": Path(model.model).name, "served_quant": model.quant, "served_gpu": gpu.name}
    other = {name: said[name] for name, value in ours.items() if said.get(name, value) != value}
    if other:
        theirs = ", ".join(f"{name.removeprefix('served_')} {value}" for name, value in other.items())
        raise PlanInfeasible(
            f"{report} was measured on {theirs}; {model.folder} has {', '.join(ours[name] for name in other)}.",
            hint="Measure this build on its card with `trtk bench`, or leave --report out for the planner's word.",
        )
