"""The kserve target: services that KServe takes, whose container is the one that KServe would fill with vLLM."""

import dataclasses
import re

import pytest
import yaml

from tests.deploy.deployments import spec_of
from toolkit import deploy, monitoring, validation
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import ModelVolume, Reasoned
from toolkit.validation import schemas
from toolkit.validation.folder import KubernetesObject

CASES = [
    ("engine", 1, "pvc", "keda"),
    ("engine", 2, "oci", "hpa"),
    ("engine", 8, "hostpath", ""),
    ("llmapi", 1, "hostpath", ""),
    ("llmapi", 2, "pvc", ""),
    ("llmapi", 8, "oci", ""),
    ("openvino", 1, "pvc", "hpa"),
    ("openvino", 1, "oci", ""),
    ("openvino", 1, "hostpath", "keda"),
]
ON_TRITON = {"resource": "InferenceService"}


def kserve(flow="engine", **changes):
    return spec_of("kserve", flow, **{"volume": "pvc", **changes})


def objects(spec):
    """Return the objects of manifests/ by kind."""
    texts = [text for name, text in deploy.render(spec).items() if name.startswith("manifests/")]
    return {one["kind"]: one for text in texts for one in yaml.load_all(text, yaml.CSafeLoader)}


def llm(**changes):
    return objects(kserve("llmapi", **changes))


def main(made):
    (only,) = made["LLMInferenceService"]["spec"]["template"]["containers"]
    return only


def server(made):
    (only,) = made["ServingRuntime"]["spec"]["containers"]
    return only


def examined(spec, folder):
    for name, text in deploy.render(spec).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return {one.name: one.outcome for one in validation.examine(folder)}


def judged(document):
    one = KubernetesObject(file="service.yaml", line=1, document=document)
    return list(schemas.problems(one, schemas.known()[document["apiVersion"], document["kind"]]))


@pytest.mark.parametrize(("flow", "tp", "volume", "autoscale"), CASES, ids=lambda value: str(value) or "fixed")
def test_every_object_is_one_that_a_cluster_takes(flow, tp, volume, autoscale, tmp_path):
    found = examined(kserve(flow, tp=tp, volume=volume, autoscale=autoscale), tmp_path)
    assert {name: one.problems for name, one in found.items() if one.problems} == {}
    judges = {"yamllint", "kubernetes-validate", "jsonschema", "references", "secrets"}
    assert {name for name in judges if found[name].state != validation.PASSED} == set()
    assert bool(autoscale == "keda") == (found["promql-parser"].state == validation.PASSED)


@pytest.mark.parametrize(
    ("flow", "kind", "path", "key"),
    [
        ("llmapi", "LLMInferenceService", ("spec",), "templates"),
        ("llmapi", "LLMInferenceService", ("spec", "model"), "url"),
        ("llmapi", "LLMInferenceService", ("spec", "template"), "terminationGracePeriod"),
        ("llmapi", "LLMInferenceService", ("spec", "template", "containers", 0), "resource"),
        ("engine", "InferenceService", ("spec", "predictor"), "minReplica"),
        ("engine", "InferenceService", ("spec", "predictor", "model"), "storageURI"),
        ("engine", "ServingRuntime", ("spec",), "securityContext"),
        ("engine", "ServingRuntime", ("spec", "containers", 0), "volumeMount"),
    ],
    ids=str,
)
def test_a_misspelt_field_is_found(flow, kind, path, key):
    document = objects(kserve(flow))[kind]
    assert judged(document) == []
    place = document
    for step in path:
        place = place[step]
    place[key] = {}
    assert judged(document)


@pytest.mark.parametrize("flow", ["engine", "llmapi", "openvino"])
def test_the_same_deployment_gives_the_same_bytes(flow):
    assert deploy.render(kserve(flow)) == deploy.render(kserve(flow))


def test_a_checkpoint_is_served_by_trtllm_serve_in_the_container_main():
    made = llm(tp=2)
    assert {"LLMInferenceService", "ConfigMap"} <= set(made)
    assert main(made)["name"] == "main"
    assert "exec trtllm-serve" in main(made)["command"][2]
    assert main(made)["args"] == ["/bundle/checkpoint", "demo", "2", "1"]


def test_everything_that_kserve_would_fill_in_for_vllm_is_said():
    """KServe merges its own container into this one: command, arguments, probes with HTTPS, a small /dev/shm."""
    container = main(llm())
    assert {"command", "args", "startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTP"
        assert container[probe]["httpGet"]["port"] == 8000
    volumes = {one["name"]: one for one in llm()["LLMInferenceService"]["spec"]["template"]["volumes"]}
    assert volumes["dshm"]["emptyDir"]["sizeLimit"] == "2048Mi"


def test_kserve_copies_no_model_into_its_pods():
    assert llm()["LLMInferenceService"]["spec"]["storageInitializer"] == {"enabled": False}
    assert "storageUri" not in objects(kserve())["InferenceService"]["spec"]["predictor"]["model"]


@pytest.mark.parametrize(
    ("volume", "uri"),
    [
        ("pvc", "pvc://models/demo"),
        ("oci", "oci://registry.example.com/models/demo@sha256:" + "e" * 64),
        ("hostpath", "hf://org/demo"),
    ],
)
def test_the_uri_says_where_the_model_comes_from(volume, uri):
    assert llm(volume=volume)["LLMInferenceService"]["spec"]["model"] == {"uri": uri, "name": "demo"}


def test_the_files_of_a_claim_without_a_folder_are_its_own():
    made = objects(dataclasses.replace(kserve("llmapi"), volume=ModelVolume(kind="pvc", source="mine")))
    assert made["LLMInferenceService"]["spec"]["model"]["uri"] == "pvc://mine"


def test_an_endpoint_picker_is_told_whose_metrics_these_are():
    labels = llm()["LLMInferenceService"]["spec"]["labels"]
    assert labels["llm-d.ai/engine-type"] == labels["inference.networking.k8s.io/engine-type"] == "trtllm-serve"


def test_arguments_of_the_llm_api_reach_trtllm_serve_without_tritons_own():
    spec = kserve("llmapi", tp=2)
    told = {
        "tensor_parallel_size": 2,
        "kv_cache_config.free_gpu_memory_fraction": 0.9,
        "triton_config.max_batch_size": 8,
    }
    made = objects(dataclasses.replace(spec, model=dataclasses.replace(spec.model, llm_api=told)))
    text = made["ConfigMap"]["data"]["llm-api.yaml"]
    assert yaml.safe_load(text) == {"kv_cache_config": {"free_gpu_memory_fraction": 0.9}}
    assert made["ConfigMap"]["metadata"]["name"] != llm(tp=2)["ConfigMap"]["metadata"]["name"]


def test_a_compiled_engine_is_served_by_triton_as_a_runtime_of_its_own():
    made = objects(kserve())
    predictor = made["InferenceService"]["spec"]["predictor"]
    runtime = made["ServingRuntime"]
    assert predictor["model"]["runtime"] == runtime["metadata"]["name"]
    assert predictor["model"]["modelFormat"]["name"] == runtime["spec"]["supportedModelFormats"][0]["name"]
    assert runtime["spec"]["supportedModelFormats"][0]["autoSelect"] is False
    assert server(made)["name"] == "kserve-container"
    assert [one["name"] for one in predictor["initContainers"]] == ["engine"]
    assert "initContainers" not in objects(kserve(deferred=False))["InferenceService"]["spec"]["predictor"]


def test_a_checkpoint_can_be_served_by_triton_too():
    made = objects(kserve("llmapi", settings=ON_TRITON, autoscale="keda"))
    assert {"ServingRuntime", "InferenceService", "ScaledObject"} <= set(made)


def test_what_belongs_to_the_whole_pod_is_the_predictors():
    predictor = objects(kserve())["InferenceService"]["spec"]["predictor"]
    assert predictor["terminationGracePeriodSeconds"] == 50
    assert predictor["securityContext"]["fsGroup"] == 1000
    assert predictor["affinity"]["nodeAffinity"]
    assert predictor["automountServiceAccountToken"] is False


@pytest.mark.parametrize("flow", ["engine", "llmapi", "openvino"])
def test_no_container_has_more_rights_than_it_takes(flow):
    made = objects(kserve(flow))
    container = main(made) if flow == "llmapi" else server(made)
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("flow", ["engine", "llmapi", "openvino"])
def test_no_secret_is_on_a_command_line_or_in_the_environment(flow):
    made = objects(kserve(flow))
    found = [main(made)] if flow == "llmapi" else [server(made)]
    found += [] if flow == "llmapi" else made["InferenceService"]["spec"]["predictor"].get("initContainers", [])
    for one in found:
        said = str([*one.get("command", []), *one["args"], *one["env"]]).lower()
        assert not [word for word in ("token", "secret", "password", "api_key") if word in said]
        assert "envFrom" not in one
        assert not [variable for variable in one["env"] if "valueFrom" in variable]


@pytest.mark.parametrize("flow", ["engine", "llmapi", "openvino"])
def test_the_startup_probe_lasts_as_long_as_the_start_may_take(flow):
    made = objects(kserve(flow))
    probe = (main(made) if flow == "llmapi" else server(made))["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 300


@pytest.mark.parametrize(("kind", "scaler"), [("keda", "ScaledObject"), ("hpa", "HorizontalPodAutoscaler")])
def test_one_autoscaler_scales_kserves_deployment(kind, scaler):
    made = objects(kserve(autoscale=kind))
    assert made["InferenceService"]["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "external"
    assert made[scaler]["spec"]["scaleTargetRef"]["name"] == "demo-a4500-int4-predictor"
    predictor = made["InferenceService"]["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (1, 4)


def test_without_autoscaling_kserve_makes_none_of_its_own():
    made = objects(kserve())
    assert made["InferenceService"]["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "none"
    predictor = made["InferenceService"]["spec"]["predictor"]
    assert predictor["minReplicas"] == predictor["maxReplicas"] == 2


def test_metrics_that_scale_are_those_that_triton_exports():
    made = objects(kserve(autoscale="keda"))
    known = monitoring.known(["engine"], "26.07")
    queries = [trigger["metadata"]["query"] for trigger in made["ScaledObject"]["spec"]["triggers"]]
    assert queries
    assert not any(known.missing(query) for query in queries)


@pytest.mark.parametrize("flow", ["engine", "llmapi"])
def test_few_reach_the_server(flow):
    policy = objects(kserve(flow, settings={"client_namespace": "gateway"}))["NetworkPolicy"]["spec"]
    first = policy["ingress"][0]
    assert first["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}}}]
    ports = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
    assert ports == ([8000, 8001, 8002] if flow == "engine" else [8000])


@pytest.mark.parametrize(
    ("flow", "changes", "error", "says"),
    [
        ("llmapi", {"autoscale": "keda"}, PlanInfeasible, "tells nobody how many requests wait"),
        ("engine", {"settings": {"resource": "LLMInferenceService"}}, PlanInfeasible, "no checkpoint"),
        ("engine", {"settings": {"resource": "Pod"}}, UsageError, "resource=Pod"),
        ("llmapi", {"tp": 16, "nodes": 2}, PlanInfeasible, "several nodes"),
        ("llmapi", {"is_disaggregated": True}, PlanInfeasible, "prefill and decode"),
        ("engine", {"settings": {"client_namespace": "No Name"}}, UsageError, "client_namespace"),
    ],
)
def test_what_kserve_cannot_do_is_refused_with_a_way_out(flow, changes, error, says):
    with pytest.raises(error, match=re.escape(says)) as raised:
        deploy.render(kserve(flow, **changes))
    assert raised.value.hint


def test_openai_is_refused_where_only_triton_would_be_reached():
    spec = kserve("openvino")
    with pytest.raises(UsageError, match="one port"):
        deploy.render(dataclasses.replace(spec, container=dataclasses.replace(spec.container, openai_port=9000)))


def test_a_folder_with_an_odd_name_is_told_as_it_is():
    spec = kserve("llmapi", volume="hostpath")
    odd = dataclasses.replace(spec, model=dataclasses.replace(spec.model, model="/models/my model: $(x) 'q'"))
    made = objects(odd)
    assert main(made)["args"][1] == "my model: $(x) 'q'"
    assert judged(made["LLMInferenceService"]) == []


def test_the_readme_tells_every_step_and_the_load_test():
    texts = {flow: deploy.render(kserve(flow))["README.md"] for flow in ("engine", "llmapi")}
    for words in ("wait --for=condition=Ready", "apply -f manifests/", "delete --ignore-not-found -f manifests/"):
        assert all(words in text for text in texts.values())
    assert "port-forward deployment/demo-a4500-int4-predictor 8000:8000 8001:8001" in texts["engine"]
    assert "trtk bench --url grpc://127.0.0.1:8001 --model ensemble" in texts["engine"]
    assert "port-forward service/demo-a4500-int4-kserve-workload-svc 8000:8000" in texts["llmapi"]
    assert "trtk bench --url openai+http://127.0.0.1:8000/v1" in texts["llmapi"]


def test_reasons_of_several_lines_stay_comments():
    spec = dataclasses.replace(kserve(), replicas=Reasoned(value=2, reason="two:\nkind: Secret"))
    assert "Secret" not in objects(spec)
