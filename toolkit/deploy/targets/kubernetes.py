"""Plain Kubernetes: a Deployment, or a LeaderWorkerSet where one server takes several nodes."""

from __future__ import annotations

from toolkit.deploy import manifests, steps
from toolkit.deploy.guide import Guide, Step, readme
from toolkit.deploy.target import Target
from toolkit.specs import DeploySpec


def render(spec: DeploySpec) -> dict[str, str]:
    """Return the manifests and how to use them."""
    spec = manifests.with_defaults(spec)
    made = {f"manifests/{name}": text for name, text in manifests.manifests(spec).items()}
    made |= {f"prepare/{name}": text for name, text in manifests.prepared(spec).items()}
    return {**made, "README.md": readme(spec, _guide(spec))}


def _guide(spec: DeploySpec) -> Guide:
    where = f"kubectl --namespace {spec.namespace}"
    return Guide(
        needs=steps.needs(spec),
        prepare=steps.prepare(spec),
        apply=(
            Step(
                text="Ask the cluster what it would change, then change it:",
                command=f"{where} diff -f manifests/\n{where} apply -f manifests/",
            ),
        ),
        watch=steps.watch(spec),
        reach=steps.reach(spec),
        url=steps.URL,
        is_reaching_one=True,
        remove=(
            Step(text="The model's claim stays:", command=f"{where} delete --ignore-not-found -f manifests/"),
            *steps.remove_claim(spec),
        ),
        notes=steps.notes(spec),
    )


TARGET = Target(
    name="kubernetes",
    title="Kubernetes",
    render=render,
    settings=manifests.SETTINGS,
    is_multi_node=True,
    is_autoscaled=True,
)
