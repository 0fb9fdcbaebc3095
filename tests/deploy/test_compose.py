"""The compose target: the server of `trtk serve`, Prometheus and Grafana, read by those whose files they are."""

import dataclasses
import json
import re
import shlex

import pytest
import yaml

from tests.deploy import deployments
from tests.deploy.deployments import because
from toolkit import deploy, validation
from toolkit.deploy.targets import compose
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import ModelVolume

PROBE = {"type": "bind", "source": "./probe", "target": "/opt/trtk-probe", "read_only": True}
FLOWS = ("engine", "llmapi", "openvino")


def spec_of(flow, *, openai=0, gateway="", settings=None, **changes):
    made = deployments.spec_of("compose", flow, replicas=because(1), settings=settings or {}, **changes)
    return dataclasses.replace(
        made, container=dataclasses.replace(made.container, openai_port=openai, gateway_image=gateway)
    )


def document_of(spec):
    return yaml.safe_load(compose.render(spec)["compose.yaml"])


def test_the_server_is_the_container_of_trtk_serve_on_loopback_with_its_cards_by_uuid():
    spec = spec_of("engine", tp=2, deferred=False, settings={"gpus": "GPU-aaaa,GPU-bbbb"})
    service = document_of(spec)["services"]["triton"]

    assert service == {
        "image": "nvcr.io/nvidia/tritonserver@sha256:" + "d" * 64,
        "command": list(spec.container.arguments),
        "user": "1000:1000",
        "working_dir": "/tmp",
        "environment": {"HOME": "/tmp", "HF_HUB_OFFLINE": "1", "TRTK_ENGINES": "/engines"},
        "ports": ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001", "127.0.0.1:8002:8002"],
        "volumes": [
            {"type": "bind", "source": "/srv/models/demo", "target": "/bundle", "read_only": True},
            PROBE,
        ],
        "tmpfs": ["/tmp:rw,exec,nosuid,nodev,mode=1777,size=8g"],
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "ipc": "private",
        "shm_size": 2 << 30,
        "mem_limit": 16 << 30,
        "memswap_limit": 16 << 30,
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
            "test": [
                *("CMD", "python3", "/opt/trtk-probe/probe.py", "--model", "ensemble", "--http", "8000"),
                *("--metrics", "8002", "--timeout", "20", "--state", "/tmp/trtk-probe-health"),
            ],
            "interval": "15s",
            "timeout": "25s",
            "retries": 3,
            "start_period": "300s",
        },
        "restart": "unless-stopped",
        "stop_grace_period": "45s",
        "stop_signal": "SIGTERM",
        "networks": ["serving"],
    }


def test_reasons_stand_beside_the_numbers():
    text = compose.render(spec_of("engine"))["compose.yaml"]

    for number in ("shm_size", "mem_limit", "start_period", "stop_grace_period"):
        assert re.search(rf"^    # {number}: (so says the planner|an answer of 256 tokens)", text, re.MULTILINE)
    assert "once 1200 s more" in text
    assert "start_period: 1500s" in text


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
        for name, service in document_of(spec_of(flow))["services"].items():
            assert service["cap_drop"] == ["ALL"], name
            assert service["read_only"] is True
            assert service["security_opt"] == ["no-new-privileges:true"]
            assert {"mem_limit", "pids_limit"} <= set(service)
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
            assert (service["user"].split(":")[0] != "0") == (name != "engines")


def test_a_first_starts_engine_is_kept_in_a_volume_that_the_servers_user_owns():
    document = document_of(spec_of("engine"))
    owner = document["services"]["engines"]

    assert (owner["entrypoint"], owner["command"]) == (["chown"], ["1000:1000", "/engines"])
    assert (owner["cap_add"], owner["network_mode"], owner["restart"]) == (["CHOWN"], "none", "no")
    assert document["services"]["triton"]["depends_on"] == {"engines": {"condition": "service_completed_successfully"}}
    assert {"type": "volume", "source": "engines", "target": "/engines"} in document["services"]["triton"]["volumes"]
    assert "engines" in document["volumes"]


def test_a_docker_volume_holds_the_model_where_it_was_named():
    document = document_of(spec_of("llmapi", volume="pvc"))

    assert document["services"]["triton"]["volumes"] == [
        {
            "type": "volume",
            "source": "model",
            "target": "/bundle",
            "read_only": True,
            "volume": {"subpath": "demo"},
        },
        PROBE,
    ]
    assert document["volumes"]["model"] == {"name": "models", "external": True}


def test_prometheus_and_grafana_watch_this_server():
    made = compose.render(spec_of("openvino", openai=9000, gateway="trtk-cpu"))
    scraped = yaml.safe_load(made["prometheus/prometheus.yml"])["scrape_configs"]
    grafana = yaml.safe_load(made["compose.yaml"])["services"]["grafana"]

    assert [one["static_configs"][0]["targets"] for one in scraped] == [["triton:8002"], ["gateway:9000"]]
    assert yaml.safe_load(made["grafana/provisioning/datasources/prometheus.yaml"])["datasources"][0]["url"] == (
        "http://prometheus:9090"
    )
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_admin_password"
    services = yaml.safe_load(made["compose.yaml"])["services"]
    assert services["gateway"]["ports"] == ["127.0.0.1:9000:9000"]
    assert not [port for port in services["triton"]["ports"] if "9000" in port]


def test_a_gateway_beside_nvidias_image_finds_triton_on_the_projects_network():
    made = compose.render(spec_of("llmapi", openai=9000, gateway="registry.example.com/trtk-cpu:1"))
    document, config = yaml.safe_load(made["compose.yaml"]), json.loads(made["gateway/gateway.json"])
    scraped = yaml.safe_load(made["prometheus/prometheus.yml"])["scrape_configs"]

    assert (config["triton_grpc"], config["port"], config["api_keys"]) == ("triton:8001", 9000, None)
    assert document["services"]["gateway"]["ports"] == ["127.0.0.1:9000:9000"]
    assert document["services"]["gateway"]["networks"] == document["services"]["triton"]["networks"]
    assert scraped[1]["static_configs"][0]["targets"] == ["gateway:9000"]


CASES = [
    {"flow": "engine", "deferred": False},
    {"flow": "engine", "tp": 2, "volume": "pvc"},
    {"flow": "llmapi", "tp": 2, "volume": "pvc", "openai": 9000, "gateway": "registry.example.com/trtk-cpu:1"},
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
        ({"settings": {"retention": "a while"}}, UsageError, "retention=a while is no duration"),
        ({"settings": {"retention": ""}}, UsageError, "retention= is no duration"),
        ({"settings": {"prometheus_image": "a b"}}, UsageError, "prometheus_image='a b' is no image"),
        ({"settings": {"grafana_image": ""}}, UsageError, "grafana_image= names no image"),
        ({"settings": {"gpus": "0"}}, UsageError, "names 0, which is no card's UUID"),
    ],
)
def test_what_one_machine_cannot_do_is_refused_with_what_to_do(changes, error, message):
    spec = spec_of("engine")
    settings = {**spec.settings, **changes.pop("settings", {})}

    with pytest.raises(error, match=message) as refused:
        compose.render(dataclasses.replace(spec, settings=settings, **changes))

    assert refused.value.hint


def test_odd_names_of_folders_are_words_of_the_commands_and_no_variables():
    odd = ModelVolume(kind="hostpath", source="/srv/a model's $HOME")
    spec = spec_of("engine", volume=odd)
    spec = dataclasses.replace(spec, model=dataclasses.replace(spec.model, folder="my demo"))
    files = compose.render(spec)

    mounts = yaml.safe_load(files["compose.yaml"])["services"]["triton"]["volumes"]
    assert "/srv/a model's $$HOME" in [mount["source"] for mount in mounts]
    (line,) = [line for line in files["README.md"].splitlines() if "rsync" in line]
    assert shlex.split(line)[-2:] == ["my demo/", "/srv/a model's $HOME/"]


@pytest.mark.parametrize("target", ["compose", "slurm", "openstack"])
def test_no_command_of_a_readme_deletes_what_was_in_the_models_place(target):
    one = {"replicas": because(1)}
    text = deploy.render(deployments.spec_of(target, volume="hostpath", **one))["README.md"]

    assert "rsync" in text
    assert "--delete" not in text
