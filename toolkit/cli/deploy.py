"""`trtk deploy`: a served folder, handed over to a cluster or another machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli import output
from toolkit.cli.deploy_options import place_options, size_options
from toolkit.cli.plan_options import load_options, price_options, workload_options
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from toolkit.specs import Autoscale, Cost, DeploySpec

EPILOG = output.examples(
    "trtk deploy kubernetes engines/llama-3.1-8b-instruct-a4500-int4 --rate 8 --slo ttft=500ms",
    "trtk deploy helm engines/demo-l4-fp8 --autoscale 1..4 --prometheus http://prometheus.monitoring:9090",
    "trtk deploy slurm --settings",
    "trtk deploy --check deploy/demo-l4-fp8",
)


@click.command(epilog=EPILOG)
@click.argument("target", required=False)
@click.argument("engine", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), help="Folder to write; deploy/NAME.")
@place_options
@size_options
@workload_options
@load_options
@price_options
@click.option("--check", "checked", type=click.Path(path_type=Path), metavar="DIR", help="Validate an output folder.")
@click.option("--settings", "is_listing", is_flag=True, help="List what --set and --values may say of TARGET.")
@click.option("--dry-run", is_flag=True, help="Say what would be written.")
@output.json_option
def deploy(
    target: str | None,
    engine: Path | None,
    folder: Path | None,
    checked: Path | None,
    is_listing: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write what deploys ENGINE, a folder or a bundle that `trtk build` made, on TARGET.

    TARGET is compose, kubernetes, helm, kserve, dynamo, slurm or openstack. How many servers, when there are more of
    them and how long they may take to start follows from the planner or a load test, and stands in the files with its
    reason. The same input gives the same bytes; README.md has the commands to apply, watch, test and remove it.
    """
    if checked:
        from toolkit.cli import deploy_check

        if target or engine:
            raise UsageError("--check looks at a folder that was written.", hint=f"trtk deploy --check {checked}")
        deploy_check.run(checked, as_json=as_json)
        return
    if target and is_listing:
        list_settings(target, as_json=as_json)
        return
    if not target or not engine:
        raise UsageError(
            "`trtk deploy` takes a target and what `trtk build` made.",
            hint="Try: trtk deploy kubernetes engines/NAME; `ls engines` lists what was built.",
        )
    write(target, engine, folder, {**options, "dry_run": dry_run}, as_json=as_json)


def list_settings(target: str, *, as_json: bool) -> None:
    """Show what only one target asks for."""
    from toolkit import deploy as room
    from toolkit.specs import to_json

    found = room.pick(target)
    if as_json:
        output.document(to_json(found.settings))
        return
    rows = [(name, one.default, one.help) for name, one in found.settings.items()]
    output.table(f"Settings of {found.name}: {found.title}", ["name", "default", "what"], rows)


def write(target: str, engine: Path, folder: Path | None, options: dict[str, Any], *, as_json: bool) -> None:
    """Render one deployment and put it in its place."""
    from toolkit import deploy as room
    from toolkit import validation
    from toolkit.cli import deploy_making, deploy_writing
    from toolkit.specs import to_json

    found = room.pick(target)
    spec = deploy_making.spec_of(found, engine, options)
    texts = room.render(spec)
    validation.need_no_secrets(texts)
    place = folder or Path("deploy") / spec.name
    happened = ""
    if not options["dry_run"]:
        happened = deploy_writing.write(texts, place)
    if as_json:
        output.document({
            "folder": str(place),
            "is_written": not options["dry_run"],
            "files": sorted(texts),
            "deployment": to_json(spec),
        })  # fmt: skip
        return
    _show(spec, place, texts, happened)


def _show(spec: DeploySpec, folder: Path, texts: dict[str, str], happened: str) -> None:
    from toolkit import deploy as room

    verb = {"": "Would write", "unchanged": "Nothing changed in"}.get(happened, "Wrote")
    what = "" if verb.startswith("Nothing") else f"{len(texts)} files to "
    output.text(f"{verb} {what}{folder}: {spec.title} on {spec.target}.")
    if not happened:
        for name in texts:
            output.text(f"  {name}")
    output.text(f"Replicas: {spec.replicas.whole}, {spec.replicas.reason}.")
    if spec.autoscale:
        output.text(_autoscaling_said(spec.autoscale, is_by_kv_use=room.pick(spec.target).is_scaled_by_kv_use))
    if spec.cost:
        output.text(_cost_said(spec, spec.cost))
    elif spec.gpu.sm:
        output.text(f"Cost: nobody here knows a price of {spec.gpu.title}; give one with --price 0.35EUR/h.")
    if happened:
        output.text(f"Next: trtk deploy --check {folder}; {folder / 'README.md'} has the commands.")


def _autoscaling_said(scale: Autoscale, *, is_by_kv_use: bool) -> str:
    said = (
        f"Autoscaling: {scale.min_replicas.whole} to {scale.max_replicas.whole}, one more above "
        f"{scale.waiting.value:g} waiting requests of each ({scale.waiting.reason})"
    )
    return (
        f"{said} or {scale.kv_use.value:.0%} of the KV cache ({scale.kv_use.reason})." if is_by_kv_use else f"{said}."
    )


def _cost_said(spec: DeploySpec, cost: Cost) -> str:
    around, gpus = cost.per_month_with_extras, spec.replicas.whole * spec.model.ranks
    whose = "Cost of the decode workers alone" if spec.is_disaggregated else "Cost"
    return (
        f"{whose}: {cost.per_month:,.0f} {cost.currency} a month for {gpus} GPU{'s' * (gpus > 1)}, "
        f"{around.low:,.0f} to {around.high:,.0f} with what is around them."
    )
