"""The compose target: the server of `trtk serve`, Prometheus and Grafana, read by those whose files they are."""

import dataclasses
import re

import pytest
import yaml

from toolkit import deploy, validation
from toolkit.deploy.targets import compose
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import (
    Budgets,
    DeployedContainer,
    DeployedGpu,
    DeployedModel,
    DeploySpec,
    Limits,
    ModelVolume,
    Placement,
    Promise,
    Reasoned,
)

DIGEST = "nvcr.io/nvidia/tritonserver@sha256:" + "d" * 64
FLOWS = {"engine": "trtllm", "llmapi": "llmapi", "openvino": "openvino"}


def because(value, reason="a reason"):
    return Reasoned(value=value, reason=reason)


def spec_of(flow, *, tp=1, volume="hostpath", is_deferred=False, openai=0, **settings):
    is_cpu = flow == "openvino"
    known = {name: setting.default for name, setting in compose.SETTINGS.items()}
    return DeploySpec(
        target="compose",
        name="llama-a4500",
        namespace="default",
        model=DeployedModel(
            folder="llama-a4500",
            model="meta-llama/Llama-3.1-8B-Instruct",
            revision="",
            kind=FLOWS[flow],
            flow=flow,
            quant="int4",
            build_id="b17d",
            is_deferred=is_deferred,
            front_model="ensemble",
            limits=Limits(max_batch_size=16, max_seq_len=4096, max_num_tokens=2048, tp=tp),
        ),
        gpu=DeployedGpu(
            name="cpu" if is_cpu else "a4500",
            title="CPU" if is_cpu else "NVIDIA RTX A4500",
            product="",
            sm=0 if is_cpu else 86,
            memory_mib=0 if is_cpu else 20470,
        ),
        placement=Placement(nodes=1, gpus_per_node=0 if is_cpu else tp),
        container=DeployedContainer(
            image="trtk-cpu" if is_cpu else DIGEST,
            arguments=("serve", "/engine") if is_cpu else ("python3", "/bundle/start.py", "--", "--id=$x"),
            environment={"HOME": "/tmp"},
            uid=1000,
            gid=1000,
            model_path="/engine" if is_cpu else "/bundle",
            engines_path="/engines" if is_deferred else "",
            openai_port=openai,
        ),
        volume=ModelVolume(kind=volume, source="/srv/llama" if volume == "hostpath" else "llama", sub_path=""),
        budgets=Budgets(
            startup_s=because(230, "50 s to read"),
            compile_s=because(1500, "TensorRT compiles 5 GB") if is_deferred else None,
            drain_s=because(20, "an answer takes 10 s"),
            memory_bytes=because(24 << 30, "twice the weights"),
            shm_bytes=because(5 << 28, "1 GiB and a rank"),
            cpus=because(4, "as many as it was sized for"),
        ),
        replicas=because(1, "the load is small"),
        promise=Promise(
            evidence="the planner (fitted)", isl=512, osl=128, concurrency=because(8), slos=("ttft=500ms@p95",)
        ),
        settings={**known, **settings},
        release="" if is_cpu else "26.07",
        trtk="0.1.0",
    )


def document_of(spec):
    return yaml.safe_load(compose.render(spec)["compose.yaml"])


def test_the_server_is_the_container_of_trtk_serve_on_loopback_with_its_cards_by_uuid():
    service = document_of(spec_of("engine", tp=2, gpus="GPU-aaaa,GPU-bbbb"))["services"]["triton"]

    assert service == {
        "image": DIGEST,
        "command": ["python3", "/bundle/start.py", "--", "--id=$$x"],
        "user": "1000:1000",
        "working_dir": "/tmp",
        "environment": {"HOME": "/tmp"},
        "ports": ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001", "127.0.0.1:8002:8002"],
        "volumes": [{"type": "bind", "source": "/srv/llama", "target": "/bundle", "read_only": True}],
        "tmpfs": ["/tmp:rw,exec,nosuid,nodev,mode=1777,size=8g"],
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "ipc": "private",
        "shm_size": 5 << 28,
        "mem_limit": 24 << 30,
        "memswap_limit": 24 << 30,
        "pids_limit": 4096,
        "ulimits": {"memlock": {"soft": -1, "hard": -1}, "stack": {"soft": 67108864, "hard": 67108864}},
        "deploy": {
            "resources": {
                "reservations": {
                    "devices": [{"driver": "nvidia", "device_ids": ["GPU-aaaa", "GPU-bbbb"], "capabilities": ["gpu"]}]
                }
            }
        },
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
        "healthcheck": {
            "test": ["CMD", "python3", "-c", compose.READY.format(port=8000)],
            "interval": "15s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "230s",
        },
        "restart": "unless-stopped",
        "stop_grace_period": "45s",
        "stop_signal": "SIGTERM",
        "networks": ["serving"],
    }


def test_reasons_stand_beside_the_numbers():
    text = compose.render(spec_of("engine", is_deferred=True))["compose.yaml"]

    for reason in ("1 GiB and a rank", "twice the weights", "50 s to read", "TensorRT compiles 5 GB", "takes 10 s"):
        assert f"{reason}" in text
    assert "start_period: 1730s" in text


def test_cards_that_nobody_named_must_stand_in_env():
    made = compose.render(spec_of("engine", tp=2))
    devices = yaml.safe_load(made["compose.yaml"])["services"]["triton"]["deploy"]["resources"]["reservations"][
        "devices"
    ]

    assert devices[0]["device_ids"] == [
        "${TRTK_GPU_0:?a UUID of nvidia-smi -L, in .env}",
        "${TRTK_GPU_1:?a UUID of nvidia-smi -L, in .env}",
    ]
    assert re.findall(r"^TRTK_GPU_\d", made[".env.example"], re.MULTILINE) == ["TRTK_GPU_0", "TRTK_GPU_1"]
    assert "head -n 2" in made["README.md"]


def test_no_service_is_root_has_a_capability_writes_to_its_root_or_listens_beyond_this_machine():
    for flow in FLOWS:
        for name, service in document_of(spec_of(flow, is_deferred=flow == "engine"))["services"].items():
            assert service["cap_drop"] == ["ALL"], name
            assert service["read_only"] is True
            assert service["security_opt"] == ["no-new-privileges:true"]
            assert {"mem_limit", "pids_limit"} <= set(service)
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
            assert (service["user"].split(":")[0] != "0") == (name != "engines")


def test_a_first_starts_engine_is_kept_in_a_volume_that_the_servers_user_owns():
    document = document_of(spec_of("engine", is_deferred=True))
    owner = document["services"]["engines"]

    assert (owner["entrypoint"], owner["command"]) == (["chown"], ["1000:1000", "/engines"])
    assert (owner["cap_add"], owner["network_mode"], owner["restart"]) == (["CHOWN"], "none", "no")
    assert document["services"]["triton"]["depends_on"] == {"engines": {"condition": "service_completed_successfully"}}
    assert {"type": "volume", "source": "engines", "target": "/engines"} in document["services"]["triton"]["volumes"]
    assert "engines" in document["volumes"]


def test_a_docker_volume_holds_the_model_where_it_was_named():
    document = document_of(spec_of("llmapi", volume="pvc"))

    assert document["services"]["triton"]["volumes"] == [
        {"type": "volume", "source": "model", "target": "/bundle", "read_only": True}
    ]
    assert document["volumes"]["model"] == {"name": "llama", "external": True}


def test_prometheus_and_grafana_watch_this_server():
    made = compose.render(spec_of("openvino", openai=9000))
    scraped = yaml.safe_load(made["prometheus/prometheus.yml"])["scrape_configs"]
    grafana = yaml.safe_load(made["compose.yaml"])["services"]["grafana"]

    assert [one["static_configs"][0]["targets"] for one in scraped] == [["triton:8002"], ["triton:9000"]]
    assert yaml.safe_load(made["grafana/provisioning/datasources/prometheus.yaml"])["datasources"][0]["url"] == (
        "http://prometheus:9090"
    )
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_admin_password"
    assert "127.0.0.1:9000:9000" in yaml.safe_load(made["compose.yaml"])["services"]["triton"]["ports"]


CASES = [
    {"flow": "engine", "tp": 1},
    {"flow": "engine", "tp": 2, "volume": "pvc", "is_deferred": True},
    {"flow": "llmapi", "tp": 2, "volume": "pvc"},
    {"flow": "openvino", "openai": 9000},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_validator_passes_or_says_why_it_did_not_look(case, tmp_path):
    for name, text in deploy.render(spec_of(**case)).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    outcomes = {result.name: result.outcome for result in validation.examine(tmp_path)}

    assert [problem for one in outcomes.values() for problem in one.problems] == []
    assert outcomes["compose-spec"].checked == 1
    assert outcomes["yamllint"].checked == 6
    assert outcomes["promql-parser"].checked > 10
    assert outcomes["secrets"].state == "passed"


def test_the_same_spec_gives_the_same_bytes():
    assert deploy.render(spec_of("engine")) == deploy.render(spec_of("engine"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"replicas": because(3, "8 requests a second")},
            PlanInfeasible,
            "this load takes 3 \\(8 requests a second\\)",
        ),
        ({"settings": {"http_port": "80000"}}, UsageError, "'80000' is no port"),
        ({"settings": {"http_port": "9090"}}, UsageError, "Two services would have port 9090"),
        ({"settings": {"gpus": "GPU-1,GPU-2"}}, UsageError, "names 2 cards; this takes 1"),
    ],
)
def test_what_one_machine_cannot_do_is_refused_with_what_to_do(changes, error, message):
    spec = spec_of("engine")
    settings = {**spec.settings, **changes.pop("settings", {})}

    with pytest.raises(error, match=message) as refused:
        compose.render(dataclasses.replace(spec, settings=settings, **changes))

    assert refused.value.hint
