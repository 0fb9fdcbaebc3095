"""An LLMInferenceService of KServe that runs trtllm-serve: its values, and what it cannot do."""

from __future__ import annotations

import hashlib
import urllib.parse
from collections.abc import Mapping
from typing import Any

from toolkit.deploy import llm_api, names
from toolkit.errors import PlanInfeasible
from toolkit.specs import DeploySpec

#: Where KServe's Service and route look.
PORT = 8000
CONFIG_PATH = "/etc/trtk"
#: llm-d's endpoint picker goes by the first, its older releases by the second.
ENGINE_LABELS = ("llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type")
#: Said on trtllm-serve's command line.
ON_THE_LINE = ("tensor_parallel_size", "pipeline_parallel_size", "backend")


def need_possible(spec: DeploySpec) -> None:
    """Raise for what trtllm-serve under KServe cannot do."""
    if spec.model.kind != "llmapi":
        raise PlanInfeasible(
            f"{spec.model.folder} is no checkpoint for the LLM API, and trtllm-serve reads nothing else.",
            hint="--set resource=InferenceService runs Triton.",
        )
    if spec.autoscale:
        raise PlanInfeasible(
            f"trtllm-serve of TensorRT-LLM {spec.model.tensorrt_llm} tells nobody how many requests wait, and KServe's "
            "own autoscaler reads vLLM's metrics.",
            hint="--set resource=InferenceService runs Triton, whose metrics say it; or try the target dynamo.",
        )


def values_of(spec: DeploySpec, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template takes beside the values of plain Kubernetes."""
    settings, _ = llm_api.accepted(spec.model.llm_api, tuple(spec.model.llm_api))
    config = llm_api.yaml_of({key: value for key, value in settings.items() if key not in ON_THE_LINE})
    digest = hashlib.sha256(config.encode()).hexdigest()[: names.HASH_LENGTH]
    model, limits = served_name(spec), spec.model.limits
    return {
        **values,
        "pod_labels": {**values["labels"], **dict.fromkeys(ENGINE_LABELS, "trtllm-serve")},
        "config": config,
        "config_name": names.part_of(spec.name, f"llm-api-{digest}"),
        "config_path": CONFIG_PATH,
        "uri": _uri(spec),
        "model": model,
        "arguments": [f"{spec.container.model_path}/checkpoint", model, str(limits.tp), str(limits.pp)],
        "service_ports": {"http": PORT},
        "metrics_ports": [],
        "guarded": "trtllm-serve",
    }


def served_name(spec: DeploySpec) -> str:
    """Return what clients ask for: trtllm-serve says a folder's name, which has no slash."""
    return llm_api.served_name(spec.model.model).rpartition("/")[2]


def _uri(spec: DeploySpec) -> str:
    volume = spec.volume
    if volume.kind == "pvc":
        return f"pvc://{volume.source}/{volume.sub_path}".rstrip("/")
    if volume.kind == "oci":
        return f"oci://{volume.source}"
    return f"hf://{urllib.parse.quote(llm_api.served_name(spec.model.model))}"
