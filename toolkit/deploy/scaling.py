"""What an autoscaler asks Prometheus, and whether the servers export what it asks for."""

from __future__ import annotations

from toolkit import monitoring
from toolkit.errors import UsageError
from toolkit.specs import DeploySpec

#: Of the embedded Triton of the CPU image, where a spec names no release.
CPU_RELEASE = "24.10"
#: What a flow's server exports, as toolkit.monitoring calls it.
EXPORTERS = {"openvino": "cpu", "engine": "engine", "llmapi": "llmapi"}
#: A PodMonitor's podTargetLabels turn app.kubernetes.io/instance into this.
INSTANCE = "app_kubernetes_io_instance"


def queries(spec: DeploySpec) -> dict[str, str]:
    """Return the PromQL of each measure over all of a deployment's servers."""
    who = f'namespace="{spec.namespace}",{INSTANCE}="{spec.name}"'
    made = {
        "waiting": f'sum(nv_trt_llm_request_metrics{{request_type="waiting",{who}}})',
        "kv_use": f'avg(nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="fraction",{who}}})',
    }
    _need_exported(spec, made)
    return made


def _need_exported(spec: DeploySpec, made: dict[str, str]) -> None:
    exported = monitoring.known([EXPORTERS[spec.model.flow]], spec.release or CPU_RELEASE)
    missing = sorted({str(one) for query in made.values() for one in exported.missing(query)})
    if missing:
        raise UsageError(
            f"--autoscale has no metrics to go by: {spec.model.folder} exports no {', '.join(missing)}.",
            hint="Say how many servers with --replicas.",
        )
