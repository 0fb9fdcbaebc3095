"""Plain Kubernetes: a Deployment, or a LeaderWorkerSet where one server takes several nodes."""

from __future__ import annotations

from toolkit.deploy.guide import Guide, Step, readme
from toolkit.deploy.target import Target
from toolkit.specs import DeploySpec


def render(spec: DeploySpec) -> dict[str, str]:
    """Return the manifests and their README."""
    step = Step(text="Apply.", command=f"kubectl apply --namespace {spec.namespace} -f manifests/")
    guide = Guide(
        needs=(), prepare=(), apply=(step,), watch=(), reach=step, url="grpc://127.0.0.1:8001", remove=(step,)
    )
    return {"README.md": readme(spec, guide)}


TARGET = Target(name="kubernetes", title="Kubernetes", render=render, is_multi_node=True, is_autoscaled=True)
