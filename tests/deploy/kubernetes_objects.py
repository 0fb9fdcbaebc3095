"""Deployments of the Kubernetes target, and the objects that it makes of them."""

import yaml

from tests.deploy.deployments import spec_of
from toolkit import deploy

FLOWS = ("engine", "llmapi", "openvino")


def kubernetes(flow="engine", **changes):
    return spec_of("kubernetes", flow, **{"volume": "pvc", **changes})


def group(**changes):
    return kubernetes(tp=16, nodes=2, **changes)


def objects(spec):
    """Return the objects of manifests/ by kind."""
    texts = [text for name, text in deploy.render(spec).items() if name.startswith("manifests/")]
    found = [document for text in texts for document in yaml.safe_load_all(text)]
    return {one["kind"]: one for one in found}


def pods(spec):
    """Return (whether it serves, its pod's spec) of each pod template."""
    made = objects(spec)
    if "Deployment" in made:
        return [(True, made["Deployment"]["spec"]["template"]["spec"])]
    both = made["LeaderWorkerSet"]["spec"]["leaderWorkerTemplate"]
    return [(True, both["leaderTemplate"]["spec"]), (False, both["workerTemplate"]["spec"])]


def containers(spec):
    return [one for _, pod in pods(spec) for one in [*pod.get("initContainers", []), *pod["containers"]]]


def server_of(spec):
    return pods(spec)[0][1]["containers"][0]
