"""The Kubernetes target: every object is one that a cluster takes, and none has a defect of the charts that exist."""

import dataclasses

import pytest
import yaml

from tests.deploy.deployments import because, spec_of
from toolkit import deploy, monitoring, validation
from toolkit.deploy import names
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import ModelVolume

FLOWS = ("engine", "llmapi", "openvino")
RANKS = {"engine": (1, 2, 8), "llmapi": (1, 2, 8), "openvino": (1,)}
VOLUMES, AUTOSCALERS = ("pvc", "oci", "hostpath"), ("", "keda", "hpa")
#: Every pair of ranks, volume and autoscaler.
CASES = [
    (flow, tp, volume, AUTOSCALERS[(row + column) % 3])
    for flow in FLOWS
    for row, tp in enumerate(RANKS[flow])
    for column, volume in enumerate(VOLUMES)
]


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


def examined(spec, folder):
    """Return what each validator says of a deployment's files."""
    for name, text in deploy.render(spec).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return {one.name: one.outcome for one in validation.examine(folder)}


@pytest.mark.parametrize(("flow", "tp", "volume", "autoscale"), CASES, ids=lambda value: str(value) or "fixed")
def test_every_object_is_one_that_a_cluster_takes(flow, tp, volume, autoscale, tmp_path):
    found = examined(kubernetes(flow, tp=tp, volume=volume, autoscale=autoscale), tmp_path)
    assert {name: one.problems for name, one in found.items() if one.problems} == {}
    judges = {"yamllint", "kubernetes-validate", "jsonschema", "references", "secrets"}
    assert {name for name in judges if found[name].state != validation.PASSED} == set()
    assert found["pod security"].state == (validation.NOT_CHECKED if volume == "hostpath" else validation.PASSED)
    assert bool(autoscale == "keda") == (found["promql-parser"].state == validation.PASSED)


@pytest.mark.parametrize("changes", [{}, {"autoscale": "keda"}, {"volume": "oci"}, {"deferred": False}], ids=str)
def test_every_object_of_a_group_is_one_that_a_cluster_takes(changes, tmp_path):
    found = examined(group(**changes), tmp_path)
    assert {name: one.problems for name, one in found.items() if one.problems} == {}
    assert found["jsonschema"].state == validation.PASSED


@pytest.mark.parametrize("version", ["1.27", "1.31", "1.35"])
@pytest.mark.parametrize("volume", ["pvc", "hostpath"])
def test_built_in_kinds_are_right_since_the_version_that_the_readme_names(version, volume):
    import kubernetes_validate

    assert "Kubernetes 1.27 or newer" in deploy.render(kubernetes())["README.md"]
    for one in objects(kubernetes(volume=volume, autoscale="hpa")).values():
        if one["kind"] != "PodMonitor":
            kubernetes_validate.validate(one, version, strict=True)


def test_a_kind_that_is_unknown_or_was_removed_fails(tmp_path):
    spec = kubernetes(autoscale="hpa")
    made = deploy.render(spec)
    (tmp_path / "hpa.yaml").write_text(
        made["manifests/horizontalpodautoscaler.yaml"].replace("autoscaling/v2", "autoscaling/v2beta2")
    )
    found = {one.name: one.outcome.state for one in validation.examine(tmp_path)}
    assert found["kubernetes-validate"] == validation.FAILED


@pytest.mark.parametrize("make", [kubernetes, group], ids=["pod", "group"])
def test_the_same_deployment_gives_the_same_bytes(make):
    assert deploy.render(make(autoscale="keda")) == deploy.render(make(autoscale="keda"))


# The nine defects of the charts that exist.


@pytest.mark.parametrize("make", [kubernetes, group], ids=["pod", "group"])
def test_a_start_has_the_time_that_it_takes(make):
    """Defect 1: no startup probe, and a liveness probe that ends every load of more than 40 s."""
    spec = make()
    server = server_of(spec)
    startup, alive = server["startupProbe"], server["livenessProbe"]
    # A leader waits for its workers first: they are scheduled, and pull 20 GB.
    whole_s = spec.budgets.startup_s.value + (1800 if make is group else 0)
    assert whole_s <= startup["periodSeconds"] * startup["failureThreshold"] < whole_s + 10
    assert startup["httpGet"]["path"] == "/v2/health/ready"
    assert "initialDelaySeconds" not in alive
    assert alive["periodSeconds"] * alive["failureThreshold"] >= 300


@pytest.mark.parametrize("make", [kubernetes, group], ids=["pod", "group"])
def test_every_container_that_runs_triton_has_its_shared_memory(make):
    """Defect 2: /dev/shm mounted in the init container only."""
    spec = make()
    for _, pod in pods(spec):
        (shm,) = [volume for volume in pod["volumes"] if volume["name"] == "shm"]
        assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": f"{spec.budgets.shm_bytes.whole >> 20}Mi"}
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "shm"] == ["/dev/shm"]


@pytest.mark.parametrize("kind", ["keda", "hpa"])
@pytest.mark.parametrize("flow", FLOWS)
def test_an_autoscaler_goes_by_what_waits_in_the_engine(flow, kind):
    """Defects 3, 4, 9: averages divided by at least 1, Triton's own queue, rates and sums of unlike gauges."""
    spec = kubernetes(flow, autoscale=kind)
    text = next(text for name, text in deploy.render(spec).items() if "scale" in name)
    assert 'request_type="waiting"' in text.replace("\\", "") or "request_type: waiting" in text
    assert "kv_cache_block_type" in text
    assert [word for word in ("clamp_min", "queue_duration", "rate(", "gpu_utilization", "+") if word in text] == []
    if kind == "keda":
        exported = monitoring.known([{"engine": "engine", "llmapi": "llmapi", "openvino": "cpu"}[flow]], "26.07")
        queries = [one["metadata"]["query"] for one in objects(spec)["ScaledObject"]["spec"]["triggers"]]
        assert [exported.missing(query) for query in queries] == [(), ()]
        assert all(
            (query.count("nv_trt_llm_") == 1 and "block_type" in query) or "request_type" in query for query in queries
        )


@pytest.mark.parametrize("make", [kubernetes, group], ids=["pod", "group"])
def test_no_secret_is_on_a_command_line_or_in_the_environment(make):
    """Defect 5: the token of Hugging Face as an argument."""
    for container in containers(make()):
        said = [*container.get("command", []), *container.get("args", []), *container.get("env", [])]
        words = str(said).lower()
        assert not [word for word in ("token", "secret", "password", "api_key") if word in words]
        assert "envFrom" not in container
        assert not [one for one in container.get("env", []) if "valueFrom" in one]


def test_the_init_container_builds_the_engine_or_is_not_there():
    """Defect 6: an init container that prints a greeting and holds a GPU."""
    (building,) = pods(kubernetes())[0][1]["initContainers"]
    assert building["args"] == ["python3", "/bundle/start.py", "--build-only"]
    assert [mount["name"] for mount in building["volumeMounts"]] == ["model", "shm", "tmp", "engines"]
    kept = {mount["name"]: mount.get("readOnly", False) for mount in server_of(kubernetes())["volumeMounts"]}
    assert kept == {"model": True, "shm": False, "tmp": False, "engines": True, "probe": True}
    claim = objects(kubernetes())["PersistentVolumeClaim"]
    (engines,) = [one for one in pods(kubernetes())[0][1]["volumes"] if one["name"] == "engines"]
    assert engines["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]  # two servers, perhaps on two nodes
    for spec in (kubernetes(deferred=False), kubernetes("llmapi"), kubernetes("openvino")):
        assert "initContainers" not in pods(spec)[0][1]
        assert "PersistentVolumeClaim" not in objects(spec)


def test_what_is_written_into_a_config_map_is_python_that_a_linter_has_read():
    """Defect 7: a script that uses a name which is nowhere; here ruff reads templates/, and these are its bytes."""
    from toolkit.templating import directory

    data = objects(group())["ConfigMap"]["data"]
    folder = directory() / "deploy/kubernetes"
    assert data == {name: (folder / name).read_text() for name in ("probe.py", "group.py")}
    for name, text in data.items():
        compile(text, name, "exec")


@pytest.mark.parametrize("flow", FLOWS)
def test_pods_run_without_rights_on_a_root_that_nobody_writes(flow):
    """Defect 8: root, privileged, no security context, images of 2024."""
    for _, pod in pods(kubernetes(flow)):
        shared = pod["securityContext"]
        assert (shared["runAsNonRoot"], shared["runAsUser"], shared["runAsGroup"]) == (True, 1000, 1000)
        assert shared["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["image"] == kubernetes(flow).container.image


def test_metrics_are_no_part_of_the_service_and_ports_are_not_open_to_all():
    """A chart for several nodes publishes metrics and inference on a load balancer without a key."""
    made = objects(kubernetes())
    assert made["Service"]["spec"]["type"] == "ClusterIP"
    assert [port["name"] for port in made["Service"]["spec"]["ports"]] == ["http", "grpc"]
    policy = made["NetworkPolicy"]["spec"]
    assert policy["egress"] == []
    clients, prometheus = policy["ingress"]
    assert clients == {
        "from": [{"podSelector": {}}],
        "ports": [{"port": 8000, "protocol": "TCP"}, {"port": 8001, "protocol": "TCP"}],
    }
    assert prometheus["ports"] == [{"port": 8002, "protocol": "TCP"}]


# Where pods run, and what else they have.


def test_an_engine_lands_only_on_cards_that_run_it():
    spec = kubernetes(gpu=dataclasses.replace(kubernetes().gpu, sm=120, product="NVIDIA-GeForce-RTX-5090"))
    affinity = pods(spec)[0][1]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (terms,) = affinity["nodeSelectorTerms"]
    assert terms["matchExpressions"] == [
        {"key": "nvidia.com/gpu.compute.major", "operator": "In", "values": ["12"]},
        {"key": "nvidia.com/gpu.compute.minor", "operator": "In", "values": ["0"]},
        {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["19557"]},
        {"key": "nvidia.com/gpu.sharing-strategy", "operator": "NotIn", "values": ["time-slicing", "mps"]},
        {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-GeForce-RTX-5090"]},
    ]
    for container in containers(spec):
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert container["resources"]["requests"]["nvidia.com/gpu"] == "1"


def test_a_pod_for_the_cpu_sees_no_gpu():
    (_, pod) = pods(kubernetes("openvino"))[0]
    assert "affinity" not in pod
    (server,) = pod["containers"]
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in server["env"]
    assert "nvidia.com/gpu" not in server["resources"]["limits"]


def test_a_rollout_frees_a_gpu_before_it_asks_for_one():
    def rolling(spec):
        return objects(spec)["Deployment"]["spec"]["strategy"]["rollingUpdate"]

    assert rolling(kubernetes()) == {"maxSurge": 0, "maxUnavailable": 1}
    assert rolling(kubernetes(settings={"surge": "1"})) == {"maxSurge": 1, "maxUnavailable": 0}
    assert rolling(kubernetes("openvino")) == {"maxSurge": 1, "maxUnavailable": 0}


def test_a_stop_leaves_time_for_what_is_in_flight():
    spec = kubernetes()
    (_, pod) = pods(spec)[0]
    wait = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= wait + spec.budgets.drain_s.whole
    assert "--exit-timeout-secs=20" in pod["containers"][0]["args"]


def test_an_autoscaled_deployment_says_no_number_of_its_own():
    assert "replicas" not in objects(kubernetes(autoscale="keda"))["Deployment"]["spec"]
    assert objects(kubernetes())["Deployment"]["spec"]["replicas"] == 2
    scaled = objects(kubernetes(autoscale="keda"))["ScaledObject"]["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (1, 4)
    assert [(one["metricType"], one["metadata"]["threshold"]) for one in scaled["triggers"]] == [
        ("AverageValue", "5"),
        ("Value", "0.8"),
    ]
    down = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] == 900


def test_reasons_stand_beside_the_numbers():
    text = deploy.render(kubernetes(autoscale="keda", replicas=because(3, "8 requests/s\nkind: Evil")))
    assert "# so says the planner.\n    - type: prometheus" in text["manifests/scaledobject.yaml"]
    fixed = deploy.render(kubernetes(replicas=because(3, "8 requests/s\nkind: Evil")))["manifests/deployment.yaml"]
    assert "  # 8 requests/s kind: Evil.\n  replicas: 3\n" in fixed


# Several nodes.


def test_a_group_starts_its_ranks_from_the_leader():
    made = objects(group())
    both = made["LeaderWorkerSet"]["spec"]["leaderWorkerTemplate"]
    assert (both["size"], both["restartPolicy"]) == (2, "RecreateGroupOnPodRestart")
    (leader,), (worker,) = (both[f"{role}Template"]["spec"]["containers"] for role in ("leader", "worker"))
    args = leader["args"]
    assert args[: args.index("python3", 1)] == [
        *("python3", "/opt/trtk-group/group.py", "lead", "--ranks", "16", "--slots", "8", "--")
    ]
    assert args[args.index("python3", 1) :][:6] == ["python3", "/bundle/start.py", "--rank", "--gpus", "8", "--"]
    assert worker["args"] == ["python3", "/opt/trtk-group/group.py", "serve"]
    assert "readinessProbe" not in worker
    assert {one["resources"]["limits"]["nvidia.com/gpu"] for one in (leader, worker)} == {"8"}


def test_clients_reach_the_leader_alone():
    made = objects(group())
    both = made["LeaderWorkerSet"]["spec"]["leaderWorkerTemplate"]
    leader, worker = (both[f"{role}Template"]["metadata"]["labels"] for role in ("leader", "worker"))
    for kind in ("Service", "PodMonitor", "PodDisruptionBudget"):
        wanted = made[kind]["spec"]["selector"]
        wanted = wanted.get("matchLabels", wanted)
        assert wanted.items() <= leader.items()
        assert not wanted.items() <= worker.items()
    policy = made["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= worker.items()
    assert {"podSelector": policy["podSelector"]} in policy["ingress"][-1]["from"]


def test_the_llm_api_goes_over_nodes_with_dynamo():
    with pytest.raises(PlanInfeasible, match="whose ranks Triton starts on one node") as refused:
        deploy.render(kubernetes("llmapi", tp=16, nodes=2))
    assert "dynamo" in refused.value.hint


def test_an_engine_whose_ranks_count_on_other_nodes_is_refused():
    with pytest.raises(PlanInfeasible, match="count on nodes of 8 GPUs; these have 4"):
        deploy.render(kubernetes(tp=8, nodes=2))


# OpenAI's clients.


def with_openai(flow, **changes):
    own = dataclasses.replace(
        kubernetes(flow).container,
        openai_port=9000,
        gateway_image="" if flow == "openvino" else "registry.example/trtk-cpu@sha256:" + "f" * 64,
    )
    return kubernetes(flow, container=own, **changes)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("settings", [{}, {"api_keys_secret": "keys"}], ids=["own", "named"])
def test_openai_clients_get_a_port_and_a_pool(flow, settings, tmp_path):
    spec = with_openai(flow, settings=settings)
    found = examined(spec, tmp_path)
    assert {name: one.problems for name, one in found.items() if one.problems} == {}
    made = objects(spec)
    pool = made["InferencePool"]["spec"]
    assert pool["targetPorts"] == [{"number": 9000}]
    assert pool["endpointPickerRef"]["name"] == "demo-a4500-int4-epp"
    assert pool["selector"]["matchLabels"] == made["Service"]["spec"]["selector"]
    assert made["Deployment"]["spec"]["template"]["metadata"]["labels"]["llm-d.ai/engine-type"] == "triton-tensorrt-llm"
    metrics = made["NetworkPolicy"]["spec"]["ingress"][1]
    assert {"podSelector": {}} in metrics["from"]  # the picker is in the pool's namespace
    volumes = {one["name"]: one for one in pods(spec)[0][1]["volumes"]}
    # An endpoint without keys would be anybody's who reaches it, and trtk starts none.
    secret = settings.get("api_keys_secret", "demo-a4500-int4-api-keys")
    assert volumes["api-keys"]["secret"] == {"secretName": secret, "defaultMode": 0o440}
    assert f"create secret generic {secret} --from-file=api-keys.json" in deploy.render(spec)["README.md"]
    if flow == "openvino":
        assert server_of(spec)["args"][-2:] == ["--api-keys", "/run/trtk-keys/api-keys.json"]


def test_the_gateway_reads_its_configuration(tmp_path):
    from toolkit.gateway import config

    spec = with_openai("engine", settings={"api_keys_secret": "keys"})
    path = tmp_path / "gateway.json"
    path.write_text(objects(spec)["ConfigMap"]["data"]["gateway.json"])
    found = config.read(path)
    assert (found.host, found.port, found.triton_grpc) == ("0.0.0.0", 9000, "127.0.0.1:8001")
    assert found.models == {"demo-a4500-int4": "ensemble"}
    assert found.api_keys == "/run/trtk-keys/api-keys.json"


# Names.


LONG = "meta-llama/Llama-3.1-405B-Instruct-with-a-name-that-nobody-would-type-twice-a4500-int4"


@pytest.mark.parametrize("text", ["demo-int4", "Llama_3.1", LONG, LONG + "x", "3b", "-", "Ünïcode", "a" * 41, ""])
def test_any_model_has_a_legal_name(text):
    name = names.name_of(text)
    assert names.LABEL.fullmatch(name)
    assert len(name) <= names.MAX_NAME
    assert names.name_of(name) == name


def test_names_that_had_to_change_stay_apart():
    texts = ["llama-3.1", "llama-3-1", "llama_3-1", "LLAMA-3-1", "llama 3 1", LONG, LONG + "x", LONG[:-1]]
    assert len({names.name_of(text) for text in texts}) == len(texts)
    assert names.name_of("llama-3-1") == "llama-3-1"


@pytest.mark.parametrize("name", [names.name_of(LONG), "demo", "a" * 40])
def test_two_deployments_in_a_namespace_share_nothing(name, tmp_path):
    first, second = (kubernetes(name=each, autoscale="keda") for each in (name, name[:-1] + "z"))
    there = [(one["kind"], one["metadata"]["name"]) for spec in (first, second) for one in objects(spec).values()]
    assert len(set(there)) == len(there)
    labels = objects(second)["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for one in objects(first).values():
        spec = one.get("spec", {})
        for wanted in (spec.get("selector"), spec.get("podSelector")):
            chosen = (wanted or {}).get("matchLabels", wanted)
            assert not chosen or not chosen.items() <= labels.items()
    assert {found.state for found in examined(first, tmp_path).values()} <= {
        "passed",
        "nothing to check",
        "not checked",
    }


# Wrong wishes of this target.


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"surge": "2"}, "surge is '2'"),
        ({"tmp_size": "8"}, "tmp_size is '8'"),
        ({"monitoring_namespace": ""}, "monitoring_namespace is ''"),
        ({"client_namespace": "Web"}, "no DNS label"),
        ({"pull_secret": "a\nb"}, "no DNS label"),
        ({"read_only_root": "yes"}, "read_only_root is 'yes'"),
        ({"monitor_labels": "release"}, "which is no label"),
        ({"api_keys_secret": "keys"}, "belongs to --openai"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_mean_nothing_are_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        deploy.render(kubernetes(settings=settings))


def test_a_claim_of_ones_own_is_made_and_another_is_not():
    own = kubernetes(volume="pvc")
    own = dataclasses.replace(own, volume=ModelVolume(kind="pvc", source="demo-a4500-int4-model"))
    assert "prepare/model-claim.yaml" in deploy.render(own)
    assert "delete pvc/demo-a4500-int4-model" in deploy.render(own)["README.md"]
    assert "prepare/model-claim.yaml" not in deploy.render(kubernetes())
    assert "prepare/loader.yaml" in deploy.render(kubernetes())
