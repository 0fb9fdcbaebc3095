"""`trtk calibrate`: measure what this card and engine reach, for every plan that comes after."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli import output, reaching
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from toolkit.specs import BuildPlan, Calibration, CalibrationPoint, Endpoint, ServerSetup


START_HINT = "Start one with `trtk serve ENGINE --detach`, or give --engine FOLDER and --report FOLDERS."


@click.command(
    epilog=output.examples(
        "trtk calibrate",
        "trtk calibrate --engine engines/demo-int4 --report reports/c1 --report reports/c8 --report reports/c32",
    )
)
@click.option("--name", help="Of a server that `trtk serve` started; default: the only one.")
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Take a report of `trtk bench` instead of measuring; several of different loads.",
)
@click.option(
    "--engine", type=click.Path(file_okay=False, path_type=Path), help="With --report: what was served, `trtk build`'s."
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    metavar="N",
    help="Make each run N times, in turns, each a share of its requests: where the machine's speed moves.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be sent, or fitted, and keep nothing.")
@output.json_option
def calibrate(
    name: str | None,
    reports: tuple[Path, ...],
    engine: Path | None,
    rounds: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Measure what this card and engine reach, for every plan that comes after."""
    from toolkit import calibration, speeds

    if reports:
        if name or engine is None:
            raise UsageError(
                "Reports do not say which card and engine they are of.", hint="Add --engine FOLDER, and no --name."
            )
        if rounds is not None:
            raise UsageError(
                f"--rounds {rounds} is of runs that are made now, and reports were made.",
                hint="Give as many reports of each load as there are.",
            )
        folder = engine
        plan = _plan_of(folder)
        points = [calibration.point_of(_report(path), source=str(path)) for path in reports]
    else:
        if engine is not None:
            raise UsageError("--engine belongs to --report.", hint="A live server is named with --name.")
        endpoint = reaching.ready_server(name, choose="--name", start_hint=START_HINT)
        folder = _folder_of(endpoint)
        plan = _plan_of(folder)
        if dry_run:
            _show_loads(plan, rounds or 1)
            return
        points = _measured(endpoint, plan, rounds or 1)
    setup = setup_of(plan)
    taken = calibration.Circumstances(
        engine=plan.toolchain, model=_model_of(folder), date=_today(), versions=_versions(plan)
    )
    found = calibration.fitted(setup, points, constants=speeds.constants(), taken=taken)
    path = None if dry_run else calibration.write(found)
    if as_json:
        from toolkit.specs import to_json

        output.document({**to_json(found), "path": str(path) if path else None})
    else:
        show(found, setup, path)


def setup_of(plan: BuildPlan) -> ServerSetup:
    """Return what was built as the time model sees it."""
    from toolkit.plan import kv_cache
    from toolkit.specs import ServerSetup

    return ServerSetup(
        model=plan.conversion.model,
        gpu=plan.gpu,
        recipe=plan.conversion.recipe,
        limits=plan.limits,
        kv_capacity_tokens=plan.kv_bytes / plan.kv_bytes_per_token,
        kv_element_bytes=kv_cache.BYTES_BY_TYPE[plan.conversion.kv_cache],
        tensorrt_llm="" if plan.gpu.is_cpu else plan.release.tensorrt_llm,
        engine=plan.toolchain,
    )


def show(found: Calibration, setup: ServerSetup, path: Path | None) -> None:
    """Print the constants, and the loads as measured and as a plan would predict them now."""
    from toolkit import speeds
    from toolkit.calibration.fitting import workload_of
    from toolkit.plan import speed

    rows = []
    for point in found.points:
        said = speed.predict(setup, workload_of(point), constants=speeds.constants(), calibration=found)
        rows.append(
            (
                point.concurrency,
                f"{point.isl:.0f} → {point.osl:.0f}",
                f"{point.output_tps:,.1f}",
                f"{said.output_tps.mid:,.1f}",
                f"{point.tpot_ms:,.2f}",
                f"{said.tpot_ms.mid:,.2f}",
            )
        )
    columns = ("in flight", "tokens", "tok/s", "planned", "TPOT ms", "planned ")
    output.table(f"{found.gpu}, {found.engine}, {found.recipe}", columns, rows, right=(columns[0], *columns[2:]))
    output.text(f"{'arithmetic':<14} {found.compute_tflops:,.2f} TFLOPS{_of_peak(found.compute_tflops, setup)}")
    share = setup.gpu.bandwidth_gb_per_s
    of_card = f", {found.bandwidth_gb_per_s / share:.0%} of the card's" if share else ""
    output.text(f"{'memory':<14} {found.bandwidth_gb_per_s:,.1f} GB/s{of_card}")
    output.text(f"{'each step':<14} {found.step_ms:,.2f} ms")
    output.text(f"Kept in {path}." if path else "Nothing was kept.")


def _of_peak(tflops: float, setup: ServerSetup) -> str:
    from toolkit.plan.speed.rates import precision_of

    peak = setup.gpu.dense_tflops.get(precision_of(setup.recipe, setup.gpu), 0.0)
    return f", {tflops / peak:.0%} of the card's" if peak else ""


def _measured(endpoint: Endpoint, plan: BuildPlan, rounds: int) -> list[CalibrationPoint]:
    from toolkit import bench, calibration
    from toolkit.cli import live
    from toolkit.specs import LoadProfile

    points = []
    loads = calibration.loads_within(plan.limits, rounds=rounds)
    for number, load in enumerate(loads, 1):
        output.note(
            f"Run {number} of {len(loads)}: {load.concurrency} in flight, {load.isl} tokens in, {load.osl} out."
        )
        profile = LoadProfile(
            url=reaching.triton_url(endpoint),
            concurrency=load.concurrency,
            requests=load.requests,
            isl=load.isl,
            osl=load.osl,
            warmup_requests=load.concurrency,
            seed=number,  # other prompts in each run, or the prefix cache would answer
        )
        with live.shown() as watch:
            run = bench.run(profile, watch=watch)
        report = bench.summarise(run, bench.environment()).document
        for warning in report["warnings"]:
            output.warn(warning)
        points.append(calibration.point_of(report, source=f"run {number}"))
    return points


def _show_loads(plan: BuildPlan, rounds: int) -> None:
    from toolkit import calibration

    rows = [
        (load.concurrency, load.isl, load.osl, load.requests)
        for load in calibration.loads_within(plan.limits, rounds=rounds)
    ]
    columns = ("in flight", "tokens in", "tokens out", "requests")
    output.table("What would be sent", columns, rows, right=columns)


def _plan_of(folder: Path) -> BuildPlan:
    from toolkit.cli.repository_writing import plan_of

    return plan_of(folder)


def _model_of(folder: Path) -> str:
    from toolkit import engine

    manifest = engine.manifest_of(folder)
    return str(manifest.model.get("name", folder.name)) if manifest else folder.name


def _folder_of(endpoint: Endpoint) -> Path:
    if not endpoint.spec.folder:
        raise UsageError(
            f"{endpoint.name} serves a repository that has no plan with it.",
            hint="Serve a folder that `trtk build` made.",
        )
    return Path(endpoint.spec.folder)


def _report(path: Path) -> Any:
    from toolkit.files import json_object

    file = path / "report.json" if path.is_dir() else path
    return json_object(file, hint="Give folders that `trtk bench -o` wrote.")


def _today() -> str:
    return datetime.datetime.now().astimezone().date().isoformat()


def _versions(plan: BuildPlan) -> dict[str, str]:
    from toolkit import __version__

    found = {"trtk": __version__, "release": plan.release.name}
    return found if plan.gpu.is_cpu else {**found, "tensorrt_llm": plan.release.tensorrt_llm}
