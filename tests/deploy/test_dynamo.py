"""The dynamo target: graphs that the operator takes, workers that start, and a request that changes nothing."""

import dataclasses

import pytest

from tests.deploy.deployments import spec_of
from tests.deploy.dynamo_objects import (
    PROMISE,
    arguments,
    both,
    components,
    container,
    dynamo,
    examined,
    graph,
    objects,
)
from toolkit import deploy, validation
from toolkit.deploy import dynamo_releases, llm_api
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.validation import schemas
from toolkit.validation.folder import KubernetesObject

LLM_API = {
    "tensor_parallel_size": 2,
    "max_batch_size": 32,
    "kv_cache_config.free_gpu_memory_fraction": 0.9,
    "sampler_type": "auto",
    "triton_config.max_batch_size": 32,
}
CASES = [
    ("pvc", "", False, (1, 1)),
    ("oci", "keda", False, (1, 1)),
    ("hostpath", "", True, (1, 1)),
    ("oci", "", False, (4, 1)),
    ("pvc", "keda", True, (4, 1)),
    ("hostpath", "keda", False, (16, 2)),
    ("oci", "", True, (16, 2)),
]


@pytest.mark.parametrize(("volume", "autoscale", "is_disaggregated", "ranks"), CASES, ids=str)
def test_every_object_is_one_that_a_cluster_takes(volume, autoscale, is_disaggregated, ranks, tmp_path):
    tp, nodes = ranks
    spec = dynamo(volume=volume, autoscale=autoscale, is_disaggregated=is_disaggregated, tp=tp, nodes=nodes)
    found = examined(spec, tmp_path)
    assert {name: one.problems for name, one in found.items() if one.problems} == {}
    judges = {"yamllint", "kubernetes-validate", "jsonschema", "references", "secrets"}
    assert {name for name in judges if found[name].state != validation.PASSED} == set()
    assert bool(autoscale) == (found["promql-parser"].state == validation.PASSED)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (("spec",), "component"),
        (("spec", "components", 1), "replica"),
        (("spec", "components", 1), "podSpec"),
        (("spec", "components", 1, "podTemplate", "spec"), "terminationGracePeriod"),
        (("spec", "components", 1, "podTemplate", "spec", "containers", 0), "resource"),
    ],
    ids=str,
)
def test_a_misspelt_field_is_found(path, key):
    document = graph(dynamo())
    place = document
    for step in path:
        place = place[step]
    place[key] = {}
    assert judged(document)


def test_a_graph_as_it_was_made_has_no_problem():
    assert judged(graph(dynamo())) == []


def judged(document):
    one = KubernetesObject(file="graph.yaml", line=1, document=document)
    return list(schemas.problems(one, schemas.known()["nvidia.com/v1beta1", document["kind"]]))


@pytest.mark.parametrize("changes", [{}, {"is_disaggregated": True, "autoscale": "keda"}], ids=str)
def test_the_same_deployment_gives_the_same_bytes(changes):
    assert deploy.render(dynamo(**changes)) == deploy.render(dynamo(**changes))


def test_an_aggregated_graph_has_frontends_and_one_kind_of_worker():
    found = components(dynamo())
    assert [(name, one["type"]) for name, one in found.items()] == [("frontend", "frontend"), ("worker", "worker")]
    assert found["worker"]["replicas"] == 2
    assert "multinode" not in found["worker"]


def test_a_disaggregated_graph_has_workers_that_only_read_and_workers_that_only_write():
    found = components(both())
    assert list(found) == ["frontend", "prefill", "decode"]
    for role in ("prefill", "decode"):
        assert container(found[role])["args"][-2:] == ["--disaggregation-mode", role]
        assert arguments(both(), role)["cache_transceiver_config"] == {"backend": "DEFAULT"}
    assert arguments(both(), "prefill")["disable_overlap_scheduler"] is True
    assert "disable_overlap_scheduler" not in arguments(both(), "decode")


def test_a_worker_of_several_nodes_asks_each_for_its_share():
    worker = components(dynamo(tp=16, nodes=2))["worker"]
    resources = container(worker)["resources"]
    assert worker["multinode"] == {"nodeCount": 2}
    assert resources["limits"] == {"memory": "8192Mi", "nvidia.com/gpu": "8"}
    assert arguments(dynamo(tp=16, nodes=2), "worker")["gpus_per_node"] == 8


def test_arguments_that_dynamos_release_does_not_have_are_left_out_and_named():
    spec = dynamo(tp=2, model={"llm_api": LLM_API})
    assert arguments(spec, "worker") == {
        "backend": "pytorch",
        "tensor_parallel_size": 2,
        "max_batch_size": 32,
        "kv_cache_config": {"free_gpu_memory_fraction": 0.9},
    }
    assert "# Left out: sampler_type." in deploy.render(spec)["graph.yaml"]


def test_other_arguments_are_another_configmap_so_that_workers_restart():
    one, other = (dynamo(model={"llm_api": {"max_batch_size": count}}) for count in (16, 32))
    assert objects(one, "graph.yaml")[0]["metadata"]["name"] != objects(other, "graph.yaml")[0]["metadata"]["name"]


@pytest.mark.parametrize(("changes", "seconds"), [({}, 300), ({"tp": 16, "nodes": 2}, 300 + 1800)], ids=str)
def test_the_startup_probe_lasts_as_long_as_the_start_may_take(changes, seconds):
    probe = container(components(dynamo(**changes))["worker"])["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == seconds


@pytest.mark.parametrize("changes", [{}, {"is_disaggregated": True}, {"tp": 16, "nodes": 2}], ids=str)
def test_no_secret_is_on_a_command_line_or_in_the_environment(changes):
    for component in components(dynamo(**changes)).values():
        one = container(component)
        said = str([*one["command"], *one["args"], *one.get("env", [])]).lower()
        assert not [word for word in ("token", "secret", "password", "api_key") if word in said]
        assert "envFrom" not in one
    assert not [one for one in graph(dynamo(**changes))["spec"]["env"] if "valueFrom" in one]


@pytest.mark.parametrize("changes", [{}, {"is_disaggregated": True}], ids=str)
def test_no_container_has_more_rights_than_it_takes(changes):
    for component in components(dynamo(**changes)).values():
        pod = component["podTemplate"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in pod["containers"]:
            assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert one["securityContext"]["allowPrivilegeEscalation"] is False


def test_frontends_see_no_gpu():
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in container(components(dynamo())["frontend"])["env"]


def test_only_the_named_namespace_reaches_the_frontend():
    spec = dynamo(settings={"client_namespace": "gateway"})
    frontends, _ = [one for one in objects(spec, "guard.yaml") if one["kind"] == "NetworkPolicy"]
    assert frontends["spec"]["podSelector"]["matchLabels"]["trtk/component"] == "frontend"
    doors = [
        source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for rule in frontends["spec"]["ingress"]
        for source in rule["from"]
        if "namespaceSelector" in source
    ]
    assert doors == ["gateway", "monitoring"]


@pytest.mark.parametrize("name", ["a" * 40, "llama-3-1-8b-instruct-h100-sxm-fp8-a"])
def test_a_long_name_is_cut_to_what_grove_takes(name):
    spec = both(name=name)
    made = graph(spec)["metadata"]["name"]
    assert len(made + "prefill" + "prefill-ldr") <= 45
    assert made != graph(dataclasses.replace(spec, name=name[:-1] + "b"))["metadata"]["name"]


@pytest.mark.parametrize(
    ("flow", "changes", "says"),
    [
        ("engine", {}, "compiled engines"),
        ("openvino", {}, "for the CPU"),
        ("llmapi", {"autoscale": "hpa"}, "metric of Prometheus alone"),
    ],
)
def test_what_dynamo_cannot_run_is_refused_with_a_way_out(flow, changes, says):
    with pytest.raises(PlanInfeasible, match=says) as raised:
        deploy.render(spec_of("dynamo", flow, volume="pvc", **changes))
    assert raised.value.hint


def test_a_card_older_than_its_images_is_refused():
    spec = dynamo()
    with pytest.raises(PlanInfeasible, match="Ampere and newer"):
        deploy.render(dataclasses.replace(spec, gpu=dataclasses.replace(spec.gpu, sm=75)))


@pytest.mark.parametrize(
    "settings",
    [
        {"release": "0.1"},
        {"frontends": "0"},
        {"prefill": "-1"},
        {"grove": "yes"},
        {"search": "best"},
        {"client_namespace": "A"},
    ],
    ids=str,
)
def test_a_setting_that_means_nothing_is_refused(settings):
    with pytest.raises(UsageError):
        deploy.render(both(settings=settings))


def test_groves_place_can_be_taken_by_leader_worker_sets():
    spec = dynamo(tp=16, nodes=2, settings={"grove": "false"})
    assert graph(spec)["metadata"]["annotations"]["nvidia.com/enable-grove"] == "false"


def test_a_model_of_the_hub_is_served_by_its_id_and_a_folder_by_its_name():
    assert llm_api.served_name("meta-llama/Llama-3.1-8B-Instruct") == "meta-llama/Llama-3.1-8B-Instruct"
    assert llm_api.served_name("/models/mine/") == "mine"
    assert llm_api.served_name("./mine") == "mine"


def test_the_readme_tells_every_step_and_the_load_test():
    text = deploy.render(dynamo(autoscale="keda", promise=PROMISE))["README.md"]
    for words in (
        "apply -f guard.yaml -f graph.yaml -f autoscaling.yaml",
        "get dynamographdeployment/demo-a4500-int4",
        "port-forward service/demo-a4500-int4-frontend 8000:8000",
        "trtk bench --url openai+http://127.0.0.1:8000/v1 --concurrency 32",
        "--slo ttft=500ms@p95 --slo itl=50ms",
        "TensorRT-LLM 1.3.0rc19",
    ):
        assert words in text


def test_every_release_of_dynamo_is_whole():
    release = dynamo_releases.get(dynamo_releases.default())
    assert release.runtime_image.endswith(f":{release.name}")
    assert {"tensor_parallel_size", "kv_cache_config.free_gpu_memory_fraction"} <= set(release.llm_api_keys)


@pytest.mark.parametrize(
    "odd", ['x"; rm -rf / #', "x\n---\nkind: Secret", "{{ x }}: 'y'"], ids=["quotes", "lines", "braces"]
)
def test_what_things_are_called_is_nobodys_yaml(odd):
    spec = both(autoscale="keda", model={"model": odd, "llm_api": {odd: 1}})
    spec = dataclasses.replace(spec, promise=dataclasses.replace(spec.promise, evidence=odd))
    kinds = {one["kind"] for name in deploy.render(spec) if name.endswith(".yaml") for one in objects(spec, name)}
    assert "Secret" not in kinds
    assert container(components(spec)["decode"])["args"][3] == llm_api.served_name(odd)
    assert objects(spec, "request.yaml")[0]["spec"]["model"] == llm_api.served_name(odd)
