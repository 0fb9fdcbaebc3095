"""KServe: an LLMInferenceService that runs trtllm-serve, or an InferenceService that runs Triton."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit import templating
from toolkit.deploy import kserve_guide, kserve_llm, manifests, operated
from toolkit.deploy.guide import readme
from toolkit.deploy.target import Setting, Target
from toolkit.errors import UsageError
from toolkit.specs import DeploySpec

FOLDER, APPLIED = "deploy/kserve", "manifests"
LLM, TRITON = "LLMInferenceService", "InferenceService"
SETTINGS = {
    "resource": Setting(
        default="", help=f"{LLM} or {TRITON}; empty: the first for checkpoints, the second for engines"
    ),
    **operated.settings("monitor_labels", "read_only_root", "surge", "tmp_size"),
}
#: Plain Kubernetes' objects that stay what they are; KServe makes the Deployment and the Service.
OF_TRITON = (
    "configmap.yaml",
    "engines-claim.yaml",
    "networkpolicy.yaml",
    "poddisruptionbudget.yaml",
    "podmonitor.yaml",
)
OF_LLM = ("networkpolicy.yaml", "poddisruptionbudget.yaml")
SCALERS = {"keda": "scaledobject.yaml", "hpa": "horizontalpodautoscaler.yaml"}


def render(spec: DeploySpec) -> dict[str, str]:
    """Return the service, what guards and scales it, and README.md."""
    is_llm = _resource(spec) == LLM
    if is_llm:
        kserve_llm.need_possible(spec)
    elif spec.container.openai_port:
        raise UsageError(
            "KServe's route leads to one port of an InferenceService, which is Triton's.",
            hint="Leave --openai out, or --set resource=LLMInferenceService where the folder has a checkpoint.",
        )
    full = operated.plain(spec)
    made = _llm(full) if is_llm else _triton(full)
    return {
        **{f"{APPLIED}/{name}": text for name, text in made.items()},
        **operated.prepared(spec, readers=_most(spec)),
        "README.md": readme(spec, kserve_guide.of_llm(full) if is_llm else kserve_guide.of_triton(full)),
    }


def _resource(spec: DeploySpec) -> str:
    asked = spec.settings["resource"] or (LLM if spec.model.kind == "llmapi" else TRITON)
    if asked not in {LLM, TRITON}:
        raise UsageError(f"--set resource={asked} is not known.", hint=f"Write {LLM} or {TRITON} there.")
    return asked


def _most(spec: DeploySpec) -> int:
    return (spec.autoscale.max_replicas if spec.autoscale else spec.replicas).whole


def _llm(spec: DeploySpec) -> dict[str, str]:
    values = kserve_llm.values_of(spec, manifests.values_of(spec)) | {"own": spec.container}
    return {
        "llminferenceservice.yaml": templating.render(f"{FOLDER}/llminferenceservice.yaml.j2", values),
        **_plain(OF_LLM, values),
    }


def _triton(spec: DeploySpec) -> dict[str, str]:
    values = manifests.values_of(spec) | {
        "own": spec.container,
        "model_format": spec.model.kind,
        "workload": {"api_version": "apps/v1", "kind": "Deployment", "name": kserve_guide.deployment(spec)},
    }
    made = manifests.manifests(spec)
    return {
        "inferenceservice.yaml": templating.render(f"{FOLDER}/inferenceservice.yaml.j2", values),
        **{name: made[name] for name in OF_TRITON if name in made},
        **(_plain((SCALERS[spec.autoscale.kind],), values) if spec.autoscale else {}),
    }


def _plain(names: tuple[str, ...], values: Mapping[str, Any]) -> dict[str, str]:
    return {name: templating.render(f"{manifests.FOLDER}/{name}.j2", dict(values)) for name in names}


TARGET = Target(name="kserve", title="KServe", render=render, settings=SETTINGS, is_autoscaled=True)
