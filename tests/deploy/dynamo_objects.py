"""Dynamo deployments for its tests, and the objects that they are written as."""

import dataclasses

import yaml

from tests.deploy.deployments import because, spec_of
from toolkit import deploy, validation
from toolkit.specs import Promise

PROMISE = Promise(
    evidence="reports/20261121-demo (measured)",
    isl=1024,
    osl=256,
    concurrency=because(16),
    slos=("ttft=500ms@p95", "itl=50ms"),
    ttft_ms=400.0,
    tpot_ms=22.0,
    output_tps=1600.0,
)


def dynamo(**changes):
    model = changes.pop("model", {})
    made = spec_of("dynamo", "llmapi", **{"volume": "pvc", **changes})
    return dataclasses.replace(made, model=dataclasses.replace(made.model, **model))


def both(**changes):
    return dynamo(is_disaggregated=True, promise=PROMISE, **changes)


def objects(spec, file):
    return list(yaml.load_all(deploy.render(spec)[file], yaml.CSafeLoader))


def graph(spec):
    return objects(spec, "graph.yaml")[-1]


def components(spec):
    return {one["name"]: one for one in graph(spec)["spec"]["components"]}


def container(component):
    (only,) = component["podTemplate"]["spec"]["containers"]
    return only


def arguments(spec, worker):
    """Return what a worker's LLM API is told, read from the file that its command line names."""
    line = container(components(spec)[worker])["args"]
    path = line[line.index("--extra-engine-args") + 1]
    return yaml.safe_load(objects(spec, "graph.yaml")[0]["data"][path.rpartition("/")[2]])


def examined(spec, folder):
    for name, text in deploy.render(spec).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return {one.name: one.outcome for one in validation.examine(folder)}
