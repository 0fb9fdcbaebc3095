"""The dynamo target: graphs that the operator takes, workers that start, and a request that changes nothing."""

import dataclasses
import shutil
import subprocess

import pytest
import yaml

from tests.deploy.deployments import because, spec_of
from toolkit import deploy, validation
from toolkit.deploy import dynamo_releases, llm_api
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import Cost, Promise, Range
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


def test_there_are_as_many_prefill_workers_as_the_decode_workers_keep_busy():
    # Two decode workers write 2 * 1600 tokens/s, 256 for each prompt: 12.5 prompts/s of 400 ms are five workers' time.
    assert components(both())["prefill"]["replicas"] == 5
    assert components(both(settings={"prefill": "3"}))["prefill"]["replicas"] == 3


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


def test_autoscaling_goes_through_the_adapters_of_the_graph():
    spec = both(autoscale="keda")
    scaled = {one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in objects(spec, "autoscaling.yaml")}
    assert set(scaled) == {"demo-a4500-int4-prefill", "demo-a4500-int4-decode"}
    assert all(components(spec)[name]["scalingAdapter"] == {} for name in ("prefill", "decode"))
    assert all(one["minReplicaCount"] == 1 for one in scaled.values())
    queries = {
        name: {trigger["name"]: trigger["metadata"] for trigger in one["triggers"]} for name, one in scaled.items()
    }
    assert set(queries["demo-a4500-int4-prefill"]) == {"queued", "ttft"}
    assert set(queries["demo-a4500-int4-decode"]) == {"in-flight", "itl"}
    assert queries["demo-a4500-int4-decode"]["itl"]["threshold"] == "0.05"
    # Of this graph alone: Dynamo's own label has the namespace and the graph's name.
    assert all(
        'dynamo_namespace="serving-demo-a4500-int4"' in one["query"]
        for each in queries.values()
        for one in each.values()
    )


def test_a_long_start_keeps_within_what_an_autoscaler_takes(tmp_path):
    spec = dynamo(autoscale="keda")
    slow = dataclasses.replace(spec.autoscale, cooldown_s=because(9000))
    found = examined(dataclasses.replace(spec, autoscale=slow), tmp_path)
    assert {name: one.problems for name, one in found.items() if one.problems} == {}
    (scaled,) = objects(dataclasses.replace(spec, autoscale=slow), "autoscaling.yaml")
    down = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] == 3600
    assert all(policy["periodSeconds"] <= 1800 for policy in down["policies"])


@pytest.mark.parametrize(("per_minute", "seconds"), [(60, 0.4875), (0, 0)], ids=["busy", "idle"])
def test_promtool_reads_the_first_tokens_of_this_graph_and_zero_of_an_idle_one(per_minute, seconds, tmp_path):
    """A quantile of nothing is NaN, which no autoscaler can go by."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: Debian has it in the package prometheus")
    scaled = objects(both(autoscale="keda"), "autoscaling.yaml")
    triggers = {one["name"]: one["metadata"]["query"] for each in scaled for one in each["spec"]["triggers"]}
    family, own = "dynamo_frontend_time_to_first_token_seconds_bucket", "serving-demo-a4500-int4"
    series = [
        {"series": f'{family}{{dynamo_namespace="{name}",le="{le}"}}', "values": f"0+{slope}x20"}
        for name, rows in ((own, ((0.25, 0), (0.5, 1), ("+Inf", 1))), ("another", ((0.25, 0), (0.5, 0), ("+Inf", 9))))
        for le, share in rows
        for slope in [share * per_minute]
    ]
    series.append({"series": f'dynamo_frontend_queued_requests{{dynamo_namespace="{own}",pod="a"}}', "values": "3x20"})
    series.append({"series": f'dynamo_frontend_queued_requests{{dynamo_namespace="{own}",pod="b"}}', "values": "4x20"})
    expected = {triggers["ttft"]: seconds, triggers["queued"]: 7}
    asked = [
        {"expr": expr, "eval_time": "15m", "exp_samples": [{"labels": "{}", "value": value}]}
        for expr, value in expected.items()
    ]
    told = {
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": asked}],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(told))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yaml"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prefill_workers_are_in_what_it_costs():
    cost = Cost(
        currency="EUR", per_hour=1.0, per_month=1000.0, per_month_with_extras=Range(low=1, mid=1, high=1),
        per_million_output_tokens=None, per_million_at_duty=None, duty=1.0,
    )  # fmt: skip
    assert "all 7 GPUs cost 3500 EUR a month" in deploy.render(both(cost=cost))["README.md"]


def test_without_autoscaling_nothing_scales():
    assert "autoscaling.yaml" not in deploy.render(dynamo())
    assert all("scalingAdapter" not in one for one in components(dynamo()).values())


def test_the_request_has_the_load_and_the_objectives_and_applies_nothing():
    (request,) = objects(dynamo(promise=PROMISE), "request.yaml")
    assert request["spec"]["autoApply"] is False
    assert request["spec"]["workload"] == {"isl": 1024, "osl": 256, "concurrency": 32}
    assert request["spec"]["sla"] == {"ttft": 500, "itl": 50}
    assert request["spec"]["modelCache"] == {"pvcName": "models", "pvcModelPath": "demo/checkpoint"}


def test_a_known_rate_is_asked_for_in_place_of_a_concurrency():
    (request,) = objects(dynamo(promise=dataclasses.replace(PROMISE, rate_rps=8.0)), "request.yaml")
    assert request["spec"]["workload"] == {"isl": 1024, "osl": 256, "requestRate": 8.0}


def test_an_objective_for_whole_requests_excludes_those_for_tokens():
    whole = dataclasses.replace(PROMISE, slos=("e2e=9s",))
    (request,) = objects(dynamo(promise=whole), "request.yaml")
    assert request["spec"]["sla"] == {"e2eLatency": 9000}
    (request,) = objects(dynamo(promise=dataclasses.replace(whole, slos=("e2e=9s", "ttft=1s"))), "request.yaml")
    assert request["spec"]["sla"] == {"ttft": 1000}
    (request,) = objects(dynamo(promise=dataclasses.replace(whole, slos=())), "request.yaml")
    assert "sla" not in request["spec"]


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


def test_the_profiler_may_use_as_many_gpus_as_the_graph_takes():
    (request,) = objects(dynamo(tp=4), "request.yaml")
    assert request["spec"]["hardware"]["totalGpus"] == 8


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
