"""trtk build: quantize, compile, make the repository, seal."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli import builder_options, local_gpu, output
from toolkit.cli.auto_options import auto_options
from toolkit.cli.engine_options import FLOWS, engine_options
from toolkit.cli.model_options import need_packages, quantization_options
from toolkit.cli.plan_options import workload_options
from toolkit.cli.planning import check_names, plan_of
from toolkit.cli.quality import Bounds, bounds_of
from toolkit.cli.repository_options import repository_options
from toolkit.specs import BuildPlan, EngineManifest, ModelSource

if TYPE_CHECKING:
    from toolkit.engine import BuildJob

EPILOG = output.examples(
    "trtk build demo --gpu cpu --quant int4 -o engines/demo-int4",
    "trtk build meta-llama/Llama-3.1-8B-Instruct --gpu a4500 --quant int4",
)


@click.command(epilog=EPILOG)
@click.argument("model")
@click.option("--gpu", metavar="NAME", help="Card to build for, or `cpu`; the local card where it is left out.")
@click.option(
    "--quant", required=True, metavar="NAME", help="How; `trtk quants` lists the names. `keep`: as the source is."
)
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), help="Folder to make; engines/MODEL-GPU-QUANT."
)
@click.option(
    "--flow",
    type=click.Choice(FLOWS),
    default="auto",
    show_default=True,
    help="engine: compiled by trtllm-build; llmapi: loaded as it is; openvino: the CPU.",
)
@click.option("--release", default="auto", show_default=True, metavar="TAG", help="Triton release; `trtk releases`.")
@click.option("--max-batch-size", type=click.IntRange(min=1), help="Requests in flight.")
@click.option("--max-seq-len", type=click.IntRange(min=16), help="Tokens of prompt and answer together.")
@click.option("--max-num-tokens", type=click.IntRange(min=16), help="Tokens of one engine step.")
@workload_options
@engine_options
@repository_options
@builder_options.builder_options
@quantization_options
@auto_options
@click.option("--dry-run", is_flag=True, help="Show the plan with its reasons and stop.")
@output.json_option
def build(model: str, folder: Path | None, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Build MODEL for a GPU: checkpoint, engine, Triton repository and manifest in one folder.

    The engine is compiled here with `--gpu cpu`, and where a GPU of the asked kind is there with Docker or a
    `trtllm-build` of the release. Elsewhere the folder is a bundle: its start.py compiles the engine on the target,
    inside the image that serves it, and then serves it.
    """
    from toolkit import models
    from toolkit.cli import repositories

    options["gpu"] = local_gpu.chosen(options["gpu"])
    with output.progress() as progress:
        # The names are checked before anything is fetched.
        check_names(options)
        if options["device"] != "cpu" and not dry_run:
            from toolkit import convert

            convert.need_device(options["device"])
        source = models.locate(model, progress=progress)
        plan, job = builder_options.assigned(plan_of(source, options), options)
        target = folder or default_folder(model, plan)
        if dry_run:
            repositories.need_possible(plan)
            show_plan(plan, target, as_json=as_json)
            return
        manifest, is_new = run_plan(plan, source, target, bounds=bounds_of(options), job=job, progress=progress)
    show_result(manifest, target, is_new=is_new, as_json=as_json)


def default_folder(model: str, plan: BuildPlan) -> Path:
    """Return engines/MODEL-GPU-QUANT."""
    from toolkit import workspace

    name = Path(model).name.split("@")[0]
    return workspace.engine_dir(workspace.slug(f"{name}-{plan.gpu.name}-{plan.conversion.recipe.name}"))


def run_plan(
    plan: BuildPlan,
    source: ModelSource,
    folder: Path,
    *,
    bounds: Bounds | None = None,
    job: BuildJob | None = None,
    progress: Any,
) -> tuple[EngineManifest, bool]:
    """Carry a plan out into FOLDER, which appears whole; return its manifest and whether anything was done."""
    need_packages("torch", "safetensors", "tokenizers", *(["openvino"] if plan.gpu.is_cpu else []))
    from toolkit.cli import building

    return building.run(plan, source, folder, progress, bounds=bounds, job=job)


def show_plan(plan: BuildPlan, folder: Path, *, as_json: bool) -> None:
    """Show a plan, every choice with its reason."""
    from toolkit.specs import to_json

    command = compiler_command(plan, folder)
    if as_json:
        output.document({"folder": str(folder), "plan": to_json(plan), "command": command})
        return
    decided = {choice.name for choice in plan.choices}
    choices = [*plan.choices, *(flag for flag in plan.build_flags if flag.name not in decided)]
    rows = [(choice.name, choice.value, choice.reason) for choice in choices]
    title = f"{plan.conversion.recipe.name} on {plan.gpu.title}, {plan.flow} flow, into {folder}"
    output.table(title, ["setting", "value", "reason"], rows)
    output.text(
        f"weights {plan.weights_bytes / 2**30:.2f} GiB, KV cache {plan.kv_bytes / 2**30:.2f} GiB "
        f"= {plan.kv_bytes // plan.kv_bytes_per_token} tokens"
    )
    if command:
        output.text(f"\nThe engine is compiled by\n  {shlex.join(command)}")


def compiler_command(plan: BuildPlan, folder: Path) -> list[str] | None:
    """Return the line that compiles the plan's engine below FOLDER; None where nothing is compiled by one."""
    from toolkit import engine
    from toolkit.engine import attempt
    from toolkit.engine.keys import engine_key
    from toolkit.engine.toolchains import trtllm

    if plan.toolchain != trtllm.TOOLCHAIN.name:
        return None
    engines = folder / engine.ENGINE
    return trtllm.command(
        plan,
        checkpoint=str(folder / engine.CHECKPOINT),
        output=str(engines / engine_key(plan.gpu.sm, plan.release)),
        timing_cache=str(engines / attempt.TIMING_CACHE),
    )


def show_result(manifest: EngineManifest, folder: Path, *, is_new: bool, as_json: bool) -> None:
    """Say what was built and what to do next."""
    size = sum(record.size_bytes for record in manifest.files)
    gpu, release = manifest.plan["gpu"], manifest.plan["release"]
    if as_json:
        output.document(
            {
                "folder": str(folder),
                "manifest": str(folder / "manifest.json"),
                "kind": manifest.kind,
                "plan_id": manifest.plan["plan_id"],
                "gpu": gpu["name"],
                "sm": gpu["sm"],
                "quant": manifest.plan["conversion"]["recipe"]["name"],
                "group_size": manifest.plan["conversion"]["group_size"],
                "flow": manifest.plan["flow"],
                "is_deferred": manifest.is_deferred,
                "is_reused": not is_new,
                "build_id": manifest.build_id,
                "reused": list(manifest.reused) if is_new else [],
                "bytes": size,
                "durations_s": dict(manifest.durations_s),
                "evaluation": manifest.evaluation,
                "limits": manifest.plan["limits"],
            }
        )
        return
    output.text(f"{folder} is {'built' if is_new else 'already built'}: {manifest.kind}, {size / 1e6:.1f} MB.")
    if manifest.is_deferred:
        output.text(f"It is a bundle for {gpu['title']} (sm_{gpu['sm']}): the engine is compiled on the target, in")
        output.text(f"{release['image']}, by {folder / 'start.py'}.")
    elif manifest.kind == "llmapi":
        output.text(
            f"It is for {gpu['title']} (sm_{gpu['sm']}): {folder / 'start.py'} serves it, in {release['image']}."
        )
    else:
        output.text(f"Next: trtk serve {folder}")
