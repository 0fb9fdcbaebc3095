"""From the options of `trtk build` to a plan, before anything is fetched or made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.cli import repository_options
from toolkit.cli.auto_options import auto_of
from toolkit.cli.source_options import KEEP
from toolkit.specs import BuildPlan, GpuSpec, ModelSource, ModelSpec, QuantRecipe, Sharding

if TYPE_CHECKING:
    from toolkit.plan import Asked, AskedEngine, Target


def check_names(options: dict[str, Any]) -> None:
    """Refuse a wrong name, or a GPU that cannot run the quantization, before anything is fetched."""
    from toolkit import plan, quant

    target = target_of(options)
    auto = auto_of(options)
    if options["quant"] == KEEP:  # only the weights say what it is
        return
    for recipe in auto.candidates if auto else [quant.get(options["quant"])]:
        plan.resolve(target, recipe, recipes=quant.catalogue())


def plan_of(source: ModelSource, options: dict[str, Any]) -> BuildPlan:
    """Return the plan that the options ask for; raises PlanInfeasible in milliseconds."""
    from toolkit import models, plan, quant
    from toolkit.cli.model_options import conversion_plan

    model = models.read(source)
    target = _resolved(target_of(options), model, source, options)
    asked = asked_of(options, model)
    of_checkpoint = {**options, "layout": plan.layout_of(target.flow)}
    if target.gpu.is_cpu:
        of_checkpoint["kv_cache"] = _cpu_kv_cache(options["kv_cache"])
    if target.gpu.is_cpu or target.flow == "llmapi":  # whole: divided when it is loaded, or not at all
        of_checkpoint |= dict.fromkeys(("tp", "pp", "ep"), 1)
    converted = conversion_plan(model, of_checkpoint, source)
    made = plan.make(converted, target, asked, recipes=quant.catalogue())
    need_kv_cache(made)
    return repository_options.with_settings(made, repository_options.settings_of(options, made.flow))


def target_of(options: dict[str, Any]) -> Target:
    """Return where and how the options ask an engine to run."""
    from toolkit import gpus, plan, releases

    release = releases.get(options["release"])
    return plan.Target(gpu=gpus.get(options["gpu"]), flow=options["flow"], **releases.facts_of(release))


def asked_of(options: dict[str, Any], model: ModelSpec) -> Asked:
    """Return the limits, ranks, workload and engine options that were set."""
    from toolkit import plan
    from toolkit.cli import plan_options

    is_sized = plan_options.has_workload(options) or options.get("concurrency") is not None
    return plan.Asked(
        workload=plan_options.workload_of(options, model) if is_sized else None,
        headroom=plan_options.headroom_of(options),
        max_batch_size=options["max_batch_size"],
        max_seq_len=options["max_seq_len"],
        max_num_tokens=options["max_num_tokens"],
        sharding=Sharding(tp=options["tp"], pp=options["pp"], ep=options["ep"]),
        engine=_engine_of(options),
    )


def _engine_of(options: dict[str, Any]) -> AskedEngine:
    from toolkit import plan
    from toolkit.models import adapters

    return plan.AskedEngine(
        speculative=options["speculative"],
        max_draft_len=options["max_draft_len"],
        adapters=adapters.read_all(options["lora_dir"]),
        max_lora_rank=options["max_lora_rank"],
        logits=options["gather_logits"],
        workers=options["workers"],
        set_flags=options["set_flag"],
    )


def _resolved(target: Target, model: ModelSpec, source: ModelSource, options: dict[str, Any]) -> Target:
    """Decide the flow: the checkpoint's layout follows from it."""
    from toolkit import plan, quant

    auto = auto_of(options)
    recipe = plan.mixed.recipe_of(auto) if auto else _recipe_of(options["quant"], model, source)
    resolved = plan.resolve(target, recipe, recipes=quant.catalogue(), model=model)
    for candidate in auto.candidates if auto else ():
        plan.resolve(_in_flow(target, resolved.flow), candidate, recipes=quant.catalogue(), model=model)
    return resolved


def _in_flow(target: Target, flow: str) -> Target:
    import dataclasses

    return dataclasses.replace(target, flow=flow)


def _recipe_of(name: str, model: ModelSpec, source: ModelSource) -> QuantRecipe:
    """Return the recipe called NAME; what `keep` means is the same in both layouts where both have the format."""
    from toolkit import convert, plan
    from toolkit.cli import source_options

    found = convert.survey_of(source, model) if name == KEEP else None
    return source_options.recipe_of(name, found, plan.layout_of("engine"))


def need_kv_cache(made: BuildPlan) -> None:
    """Refuse a KV cache type that the GPU is known not to store in the plan's flow."""
    need_kv_cache_type(made.conversion.kv_cache, made.flow, made.gpu)


def need_kv_cache_type(kv_cache: str | None, flow: str, gpu: GpuSpec) -> None:
    """Refuse a KV cache type that a GPU is known not to store in a flow."""
    from toolkit.errors import PlanInfeasible
    from toolkit.quant import matrix

    algo = kv_cache.upper() if kv_cache else None
    known = matrix.supported_kv_cache_sms(algo, flow)
    if algo and gpu.sm not in (*known, *matrix.unverified_kv_cache_sms(algo, flow)):
        listing = ", ".join(f"sm_{sm}" for sm in known)
        raise PlanInfeasible(
            f"A KV cache in {algo} runs on {listing or 'no GPU'} in the {flow} flow; {gpu.title} is sm_{gpu.sm}.",
            hint="Try --kv-cache none.",
        )


def _cpu_kv_cache(asked: str) -> str:
    """The CPU engine has a KV cache of its own, which no checkpoint configures."""
    from toolkit.errors import PlanInfeasible

    if asked in {"fp8", "int8"}:
        raise PlanInfeasible(
            f"--kv-cache {asked} is for NVIDIA GPUs; the CPU engine chooses its own.", hint="Leave --kv-cache out."
        )
    return "none"
