"""From a built folder and the options of `trtk deploy` to the one noun that every target renders."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cli import deploy_budgets, deploy_options, deploy_sizing, served_build
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.files import json_object
from toolkit.specs import (
    Budgets,
    BuildPlan,
    DeployedContainer,
    DeployedGpu,
    DeployedModel,
    DeploySpec,
    EngineManifest,
    GpuSpec,
    Placement,
)

if TYPE_CHECKING:
    from toolkit.deploy import Target
    from toolkit.serve.targets import Artefact

#: uid:gid of the images' own user; the same wherever this runs.
UID = GID = 1000
OPENAI_PORT = 9000


def spec_of(target: Target, engine: Path, options: dict[str, Any]) -> DeploySpec:
    """Return what is deployed, of a folder or a bundle; raises before anything is written where it cannot be."""
    from toolkit.engine import bundle_archive

    if engine.is_file() and engine.name.endswith(bundle_archive.SUFFIX):
        with tempfile.TemporaryDirectory(prefix="trtk-deploy-") as folder:
            return _spec_of(target, bundle_archive.outline(engine, Path(folder)), options)
    return _spec_of(target, _folder(engine), options)


def _spec_of(target: Target, engine: Path, options: dict[str, Any]) -> DeploySpec:
    from toolkit import __version__
    from toolkit.deploy import names
    from toolkit.serve import allowances, targets

    namespace = names.need_label(options["namespace"], "--namespace")
    settings = deploy_options.settings_of(options, target)
    found = targets.artefact(engine)
    manifest = _manifest(found)
    plan = _plan(manifest, found)
    name = names.need_label(options["name"], "--name") if options["name"] else names.name_of(found.folder.name)
    model = _model(manifest, plan, found)
    gpu = _card(plan, found, options)
    placement = _placement(model, options)
    names.need_image_name(options["image"], "--image")
    if options["image"] and target.has_own_image and not model.is_for_cpu:
        raise UsageError(
            f"--image names what serves, and {target.title} serves with images of its own release.",
            hint="Leave it out; --set release=VERSION chooses among those that are known.",
        )
    names.need_image_name(options["gateway_image"], "--gateway-image")
    made = deploy_sizing.sized(plan, model, gpu, options)
    startup_s = math.ceil(allowances.startup_timeout_s(found))
    budgets = deploy_budgets.budgets_of(model, plan, made.promise, startup_s)
    return DeploySpec(
        target=target.name,
        name=name,
        namespace=namespace,
        model=model,
        gpu=_deployed_gpu(gpu, options),
        placement=placement,
        container=_container(found, name, budgets, options),
        volume=deploy_options.volume_of(options["volume"], target, name),
        budgets=budgets,
        replicas=made.replicas,
        promise=made.promise,
        autoscale=deploy_sizing.autoscale_of(made, startup_s, options),
        cost=made.cost,
        is_disaggregated=options["disaggregated"],
        settings=settings,
        release="" if model.is_for_cpu else plan.release.name,
        trtk=__version__,
    )


def _folder(engine: Path) -> Path:
    from toolkit.serve.targets import MANIFEST

    if not engine.exists():
        raise UsageError(f"There is no {engine}.", hint="`trtk build` makes one; `ls engines` lists them.")
    if not (engine / MANIFEST).is_file():
        raise UsageError(
            f"{engine} is no folder that `trtk build` finished.", hint="`ls engines` shows those that are."
        )
    return engine


def _manifest(found: Artefact) -> EngineManifest:
    from toolkit import specs

    document = json.loads((found.folder / "manifest.json").read_text(encoding="utf-8"))
    return specs.manifest_from_json(document)


def _plan(manifest: EngineManifest, found: Artefact) -> BuildPlan:
    from toolkit.specs import from_json

    try:
        return from_json(BuildPlan, manifest.plan)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"The manifest of {found.folder} was written by trtk {manifest.tool_versions.get('trtk')}: {error}.",
            hint="Build it again with this version.",
        ) from error


def _model(manifest: EngineManifest, plan: BuildPlan, found: Artefact) -> DeployedModel:
    from toolkit.cli import repositories

    is_llm_api = found.kind == "llmapi"
    repository = repositories.spec_of(plan, repositories.Places()) if is_llm_api else None
    return DeployedModel(
        folder=found.folder.name,
        model=served_build.model_of(manifest),
        revision=str(manifest.model.get("revision") or ""),
        kind=found.kind,
        flow=plan.flow,
        quant=plan.conversion.recipe.name,
        build_id=manifest.build_id,
        is_deferred=found.is_deferred,
        front_model=plan.repository.model_name or "ensemble",
        limits=plan.limits,
        instances=plan.repository.instances.get("tensorrt_llm", 1) if found.kind == "trtllm" else 1,
        loaded_bytes=found.loaded_bytes,
        folder_bytes=sum(record.size_bytes for record in manifest.files),
        llm_api=repository.llm_api if repository else {},
        tensorrt_llm="" if found.is_for_cpu else plan.release.tensorrt_llm,
    )


def _card(plan: BuildPlan, found: Artefact, options: Mapping[str, Any]) -> GpuSpec:
    """Return the card of the target's nodes; raises PlanInfeasible for one that this cannot run on."""
    from toolkit import gpus

    if not options["gpu"]:
        return plan.gpu
    asked = gpus.get(options["gpu"])
    known = _sms(plan, found)
    if asked.sm not in known:
        runs = ", ".join(f"sm_{sm}" for sm in known) if known != (0,) else "the CPU"
        raise PlanInfeasible(
            f"{found.folder.name} runs on {runs}; {asked.title} is {f'sm_{asked.sm}' if asked.sm else 'no GPU'}.",
            hint=f"Build one for it: trtk build MODEL --gpu {asked.name}.",
        )
    return asked


def _sms(plan: BuildPlan, found: Artefact) -> tuple[int, ...]:
    """Return the SMs that a folder runs on: a compiled engine on its own, a bundle on those that it says."""
    path = found.folder / "bundle.json"
    if found.kind == "trtllm" and not found.is_deferred:
        return (plan.gpu.sm,)
    if not path.is_file():
        return (plan.gpu.sm,)
    commands = json_object(path, hint="Build it again.").get("commands")
    if not isinstance(commands, dict) or not all(sm.isdigit() for sm in commands):
        raise UsageError(f"{path} does not say on which GPUs it runs.", hint="Build it again.")
    return tuple(sorted(int(sm) for sm in commands))


def _placement(model: DeployedModel, options: Mapping[str, Any]) -> Placement:
    ranks, each = model.ranks, options["gpus_per_node"]
    if ranks <= each:
        return Placement(nodes=1, gpus_per_node=ranks)
    if not options["multi_node"]:
        raise PlanInfeasible(
            f"One server takes {ranks} GPUs (tp {model.limits.tp}, pp {model.limits.pp}); a node has {each}.",
            hint="Add --multi-node, or say what a node has with --gpus-per-node.",
        )
    if model.instances > 1:
        raise PlanInfeasible(
            f"{model.instances} instances of one engine are started by one process, on one node.",
            hint="Build with --instances tensorrt_llm=1 and let --replicas do the same.",
        )
    if ranks % each:
        raise PlanInfeasible(
            f"{ranks} ranks do not divide among nodes of {each} GPUs.",
            hint=f"Try --gpus-per-node {math.gcd(ranks, each)}.",
        )
    return Placement(nodes=ranks // each, gpus_per_node=each)


def _deployed_gpu(gpu: GpuSpec, options: Mapping[str, Any]) -> DeployedGpu:
    from toolkit.deploy import names

    product = options["gpu_product"] or ""
    if product and gpu.is_cpu:
        raise UsageError("--gpu-product names a GPU, and this runs on a CPU.", hint="Leave it out.")
    if len(product) > names.MAX_LABEL or not names.VALUE.fullmatch(product):
        raise UsageError(
            f"--gpu-product {product!r} is no label of a node.",
            hint=f"GPU feature discovery has no spaces in it: {'-'.join(gpu.title.split())}.",
        )
    return DeployedGpu(
        name=gpu.name,
        title=gpu.title,
        product=product,
        sm=gpu.sm,
        memory_mib=0 if gpu.is_cpu else gpu.memory_usable_mib,
    )


def _container(found: Artefact, name: str, budgets: Budgets, options: Mapping[str, Any]) -> DeployedContainer:
    """Return the container as the docker backend runs it; nothing of this machine is in it."""
    from toolkit.serve import containment
    from toolkit.specs import ContainerOptions, ServeSpec

    if options["gateway_image"] and not options["openai"]:
        raise UsageError("--gateway-image belongs to --openai.", hint="Add --openai.")
    spec = ServeSpec(
        name=name,
        repository=str(found.folder / "model_repository"),
        backend="docker",
        folder=str(found.folder),
        kind=found.kind,
        startup_timeout_s=budgets.startup_s.value,
        exit_timeout_s=budgets.drain_s.value,
        container=ContainerOptions(image=options["image"] or ""),
    )
    containment.need_servable(spec)
    made = containment.container(spec, None)
    model_path, *rest = (mount.target for mount in made.mounts)
    is_openai = options["openai"]
    if is_openai and not found.is_for_cpu and not options["gateway_image"]:
        raise UsageError(
            f"The image {made.image} has no OpenAI endpoint of trtk's.",
            hint="Name one that has trtk with --gateway-image: docker/cpu makes it.",
        )
    return DeployedContainer(
        image=made.image,
        arguments=made.command,
        environment=made.environment,
        uid=UID,
        gid=GID,
        model_path=model_path,
        engines_path=rest[0] if rest and found.is_deferred else "",
        openai_port=OPENAI_PORT if is_openai else 0,
        # The CPU's own image has trtk: beside the server it is the gateway, as it is beside NVIDIA's.
        gateway_image=(options["gateway_image"] or made.image) if is_openai else "",
    )
