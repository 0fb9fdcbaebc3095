"""The nine defects of the charts that exist: each would be seen in what the Kubernetes target writes."""

import pytest

from tests.deploy.kubernetes_objects import FLOWS, containers, group, kubernetes, objects, pods, server_of
from toolkit import deploy, monitoring


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
