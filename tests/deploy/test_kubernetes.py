"""The Kubernetes target: every object is one that a cluster takes, and none has a defect of the charts that exist."""

import dataclasses
import shlex

import pytest

from tests.deploy.deployments import because
from tests.deploy.kubernetes_objects import FLOWS, containers, group, kubernetes, objects, pods, server_of
from toolkit import deploy, validation
from toolkit.deploy import steps
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import ModelVolume

RANKS = {"engine": (1, 2, 8), "llmapi": (1, 2, 8), "openvino": (1,)}
VOLUMES, AUTOSCALERS = ("pvc", "oci", "hostpath"), ("", "keda", "hpa")
#: Every pair of ranks, volume and autoscaler.
CASES = [
    (flow, tp, volume, AUTOSCALERS[(row + column) % 3])
    for flow in FLOWS
    for row, tp in enumerate(RANKS[flow])
    for column, volume in enumerate(VOLUMES)
]


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
        gateway_image="registry.example/trtk-cpu@sha256:" + "f" * 64,
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


def test_the_gateway_reads_its_configuration(tmp_path):
    from toolkit.gateway import config

    spec = with_openai("engine", settings={"api_keys_secret": "keys"})
    path = tmp_path / "gateway.json"
    path.write_text(objects(spec)["ConfigMap"]["data"]["gateway.json"])
    found = config.read(path)
    assert (found.host, found.port, found.triton_grpc) == ("0.0.0.0", 9000, "127.0.0.1:8001")
    assert found.models == {"demo-a4500-int4": "ensemble"}
    assert found.api_keys == "/run/trtk-keys/api-keys.json"


EVIL = 'a b"; rm -rf $HOME #\n- kind: Evil'


# Names.


@pytest.mark.parametrize("name", ["llama-3-1-405b-instruct-with-a-a1b2c3d4", "demo", "a" * 40])
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


def test_every_kind_of_volume_is_told_how_the_model_gets_there():
    commands = {
        volume: "\n".join(step.command for step in steps.prepare(kubernetes(volume=volume)))
        for volume in ("pvc", "oci", "hostpath")
    }
    assert "exec -i demo-a4500-int4-loader -- tar -C /model/demo" in commands["pvc"]
    assert "docker push registry.example.com/models/demo\n" in commands["oci"] + "\n"
    assert "docker build --tag registry.example.com/models/demo --file - demo-a4500-int4\n" in commands["oci"]
    assert "rsync -a --chmod=D755,F644 demo-a4500-int4/ NODE:/srv/models/demo/" in commands["hostpath"]


def test_a_claim_of_ones_own_is_made_and_another_is_not():
    own = kubernetes(volume="pvc")
    own = dataclasses.replace(own, volume=ModelVolume(kind="pvc", source="demo-a4500-int4-model"))
    assert "prepare/model-claim.yaml" in deploy.render(own)
    assert "delete pvc/demo-a4500-int4-model" in deploy.render(own)["README.md"]
    assert "prepare/model-claim.yaml" not in deploy.render(kubernetes())
    assert "prepare/loader.yaml" in deploy.render(kubernetes())


@pytest.mark.parametrize(
    "volume",
    [ModelVolume(kind="pvc", source="models", sub_path=EVIL), ModelVolume(kind="hostpath", source=f"/{EVIL}")],
    ids=lambda volume: volume.kind,
)
def test_what_a_user_named_is_text_wherever_it_stands(volume):
    """Folders and reasons come from outside: none of them becomes YAML, or a command of its own."""
    model = dataclasses.replace(kubernetes().model, folder=EVIL, model=EVIL, revision=EVIL, quant=EVIL)
    promise = dataclasses.replace(kubernetes().promise, evidence=EVIL)
    spec = dataclasses.replace(kubernetes(model=model, replicas=because(2, EVIL), promise=promise), volume=volume)
    found = objects(spec)
    assert "Evil" not in found
    assert found["Deployment"]["metadata"]["annotations"]["trtk/model"] == EVIL
    readme = deploy.render(spec)["README.md"]
    assert f"Sized by {' '.join(EVIL.split())}." in readme
    commands = [words for step in steps.prepare(spec) for words in [shlex.split(step.command)]]
    assert "rm" not in [word for words in commands for word in words]
    assert any(EVIL in word for words in commands for word in words)
    if volume.kind == "pvc":
        assert [one.get("subPath") for one in server_of(spec)["volumeMounts"] if one["name"] == "model"] == [EVIL]
