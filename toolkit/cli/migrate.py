"""`trtk migrate`: an engine deployment goes over to the LLM API, because the engine flow ends with TensorRT-LLM 1.2."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit.cli import output
from toolkit.specs import BuildPlan, EngineManifest, ModelSource, ModelSpec, QuantRecipe

if TYPE_CHECKING:
    from toolkit.plan import Target
    from toolkit.plan.migration import Migration

EPILOG = output.examples(
    "trtk migrate engines/llama-a4500-int4 --dry-run",
    "trtk migrate engines/llama-a4500-int4 --flow llmapi -o engines/llama-a4500-llmapi",
)


@click.command(epilog=EPILOG)
@click.argument("engine", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--flow", type=click.Choice(["llmapi"]), default="llmapi", show_default=True, help="Where to.")
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), help="Folder to make; ENGINE-llmapi.")
@click.option("--release", metavar="TAG", help="Triton release; the engine's own where it has the LLM API.")
@click.option("--model", metavar="MODEL", help="The same model in another place, when it has moved.")
@click.option(
    "--drop",
    type=click.Choice(["speculative", "logits", "kv-cache"]),
    multiple=True,
    help="What may be left behind; may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Show what goes over and what does not, and stop.")
@output.json_option
def migrate(
    engine: Path,
    flow: str,
    folder: Path | None,
    release: str | None,
    model: str | None,
    drop: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Carry the deployment in ENGINE, which `trtk build` made, over to TensorRT-LLM's LLM API.

    The new folder has the same model, recipe, limits, ranks, KV settings and adapters, and a repository whose clients
    need not change: the same model name and tensors. The weights are quantized again, from the same source.
    """
    from toolkit import models
    from toolkit.cli.build import run_plan, show_result
    from toolkit.plan import migration

    manifest, old = engine_plan(engine)
    moved = migration.of(old, dropped=drop)
    target = folder or engine.with_name(f"{engine.absolute().name}-{flow}")
    need_another_folder(engine, target)
    with output.progress() as progress:
        source = models.locate(model or address(manifest), progress=progress)
        if model is None:  # found where it lies now, it is still called what it was called
            source = dataclasses.replace(source, name=str(manifest.model["name"]), revision=manifest.model["revision"])
        if not dry_run:
            need_same_weights(manifest, source)
        plan = new_plan(old, moved, source, release)
        if dry_run:
            show(engine, target, plan, moved, as_json=as_json)
            return
        made, is_new = run_plan(plan, source, target, progress=progress)
    for choice in moved.left:
        output.note(f"Left behind: {choice.name} {choice.value}: {choice.reason}.")
    show_result(made, target, is_new=is_new, as_json=as_json)


def engine_plan(engine: Path) -> tuple[EngineManifest, BuildPlan]:
    """Return the manifest and the plan of a compiled deployment; raises UsageError for any other folder."""
    from toolkit import engine as engines
    from toolkit.errors import UsageError
    from toolkit.specs import from_json

    manifest = engines.manifest_of(engine)
    if manifest is None:
        raise UsageError(
            f"{engine} is no folder that `trtk build` finished.", hint="`ls engines` shows those that are."
        )
    if manifest.kind != "trtllm":
        raise UsageError(
            f"{engine} holds a deployment of the kind {manifest.kind}; only compiled engines go over to the LLM API.",
            hint="Build for the LLM API at once: trtk build MODEL --flow llmapi.",
        )
    try:
        return manifest, from_json(BuildPlan, manifest.plan)
    except TypeError as error:
        raise UsageError(
            f"The manifest of {engine} was written by trtk {manifest.tool_versions.get('trtk')}: {error}.",
            hint="Build it again with this version, then migrate.",
        ) from error


def need_another_folder(engine: Path, target: Path) -> None:
    """Raise UsageError where the migration would take the place of the engine that it comes from."""
    from toolkit.errors import UsageError

    if target.resolve() == engine.resolve():
        raise UsageError(f"-o {target} is the engine itself.", hint="Leave -o out, or give another folder.")


def address(manifest: EngineManifest) -> str:
    """Return what names the model's weights: a hub id with its commit, or a folder."""
    name, revision, path = (manifest.model.get(key) for key in ("name", "revision", "path"))
    if path and Path(str(path)).is_dir():
        return str(path)
    return f"{name}@{revision}" if revision else str(name)


def need_same_weights(manifest: EngineManifest, source: ModelSource) -> None:
    """Raise UsageError when the weights are others than those that the engine was made of."""
    from toolkit import engine as engines
    from toolkit.errors import UsageError

    known = manifest.model.get("shards") or []
    now = engines.source_shards(source, known=list(known))
    if {shard["sha256"] for shard in now} != {shard["sha256"] for shard in known}:
        raise UsageError(
            f"The weights in {source.path} are not those that the engine was made of.",
            hint="Name the folder, or the hub id with its commit, with --model.",
        )


def new_plan(old: BuildPlan, moved: Migration, source: ModelSource, release: str | None) -> BuildPlan:
    """Return the plan in the LLM API's flow; raises PlanInfeasible where the GPU or the release has no way."""
    from toolkit import gpus, models, plan, quant, releases
    from toolkit.cli import repository_options
    from toolkit.cli.planning import need_kv_cache
    from toolkit.errors import PlanInfeasible

    found = releases.get(release or (old.release.name if "llmapi" in old.release.flows else releases.AUTO))
    model, converted = models.read(source), old.conversion
    recipe = {each.name: each for each in quant.catalogue()}.get(converted.recipe.name, converted.recipe)
    target = plan.Target(gpu=gpus.get(old.gpu.name), flow="llmapi", **releases.facts_of(found))
    try:
        target = plan.resolve(target, recipe, recipes=quant.catalogue(), model=model)
    except PlanInfeasible as refusal:  # its hint has options of `trtk build`
        raise PlanInfeasible(str(refusal), hint=_other_way(target, recipe, model)) from None
    made = plan.conversion(
        model, recipe, asked=moved.checkpoint, calibration=converted.calibration, auto=converted.auto
    )
    made = dataclasses.replace(made, is_source_kept=converted.is_source_kept)
    planned = plan.make(made, target, moved.asked, recipes=quant.catalogue())
    need_kv_cache(planned)
    settings, left = repository_options.moved(old.repository)
    if left:
        output.note(f"Left behind, the LLM API has no such setting: {', '.join(left)}.")
    return repository_options.with_settings(planned, settings)


def _other_way(target: Target, recipe: QuantRecipe, model: ModelSpec) -> str:
    """Name a quantization that the LLM API does run on the engine's GPU, or the way back."""
    from toolkit import quant
    from toolkit.plan import support

    if "llmapi" not in target.release.flows:
        return "Leave --release out."
    running = [each for each in quant.catalogue() if support.runs(target, each, model)]
    if not running:
        return f"Keep the engine: release {target.release.name} serves it."
    nearest = min(running, key=lambda each: (abs(each.weight_bits - recipe.weight_bits), each.name))
    command = f"trtk build MODEL --gpu {target.gpu.name} --flow llmapi --quant {nearest.name}"
    return f"Build it anew in a format that the LLM API runs there: {command}."


def show(engine: Path, folder: Path, plan: BuildPlan, moved: Migration, *, as_json: bool) -> None:
    """Show what goes over, under which name, and what is left behind."""
    from toolkit.specs import to_json

    if as_json:
        left = [to_json(choice) for choice in moved.left]
        output.document({"engine": str(engine), "folder": str(folder), "plan": to_json(plan), "left_behind": left})
        return
    title = f"{engine} on {plan.gpu.title}, over to the LLM API of {plan.release.name}, into {folder}"
    rows = [(key.name, key.value, key.reason) for key in plan.build_flags]
    output.table(title, ["key of model.yaml", "value", "reason"], rows)
    output.table("Left behind", ["setting", "value", "reason"], [(c.name, c.value, c.reason) for c in moved.left])
