"""Docker Compose on one machine: the server, Prometheus and Grafana, all of them on loopback."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import PurePosixPath
from shlex import quote
from typing import Any

from toolkit import monitoring, templating
from toolkit.containers import ContainerSpec, Mount, Published, compose_service, hardening
from toolkit.deploy import gateway_file, names, pods
from toolkit.deploy.guide import Guide, Step, readme
from toolkit.deploy.scaling import CPU_RELEASE, EXPORTERS
from toolkit.deploy.target import Setting, Target
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import ContainerOptions, DeploySpec

LOOPBACK = "127.0.0.1"
#: Closing what is open, once the last request is done.
STOP_MARGIN_S = 15
MIB = 1 << 20
SECRET = "grafana_admin_password"
#: Of a card, or of a part of one: https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables
UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z./-]+")
#: https://prometheus.io/docs/prometheus/latest/configuration/configuration/#duration; no retention is none of these.
DURATION = re.compile(r"(?=\d)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?")
SETTINGS = {
    "gpus": Setting(default="", help="UUIDs of the cards, with commas; without them .env names them"),
    "prometheus_image": Setting(default="docker.io/prom/prometheus:v3.13.5", help="image of Prometheus"),
    "grafana_image": Setting(default="docker.io/grafana/grafana:13.2.3", help="image of Grafana"),
    "http_port": Setting(default="8000", help="port of this machine for Triton's HTTP"),
    "grpc_port": Setting(default="8001", help="port of this machine for Triton's gRPC"),
    "metrics_port": Setting(default="8002", help="port of this machine for Triton's metrics"),
    "openai_port": Setting(default="9000", help="port of this machine for OpenAI's clients"),
    "prometheus_port": Setting(default="9090", help="port of this machine for Prometheus"),
    "grafana_port": Setting(default="3000", help="port of this machine for Grafana"),
    "retention": Setting(default="15d", help="how long Prometheus keeps what it read"),
}


def render(spec: DeploySpec) -> dict[str, str]:
    """Return the compose file, and what Prometheus and Grafana read."""
    _need_one_machine(spec)
    _need_settings(spec.settings)
    watched = monitoring.made(_scraped(spec), monitoring.known(_exporters(spec), spec.release or CPU_RELEASE))
    values = {
        "spec": spec,
        "settings": spec.settings,
        "server": _yaml(_server(spec)),
        "image": _image(spec.container.image),
        "gateway_image": _image(spec.container.gateway_image),
        "engines_path": spec.container.engines_path,
        "volume": spec.volume,
        "secret": SECRET,
        "start_s": _start_s(spec),
        "stop_s": _stop_s(spec),
        "gpu_variables": _gpu_variables(spec),
    }
    made = {
        "compose.yaml": templating.render("deploy/compose/compose.yaml.j2", values),
        "README.md": readme(spec, _guide(spec)),
        ".gitignore": "secrets/\n.env\n",
        "probe/probe.py": templating.source("deploy/kubernetes/probe.py"),
        "prometheus/prometheus.yml": watched.texts["prometheus.yml"],
        "prometheus/alerts.yml": watched.texts["alerts.yml"],
        "prometheus/alerts_test.yml": watched.texts["alerts_test.yml"],
        "grafana/dashboards/serving.json": watched.texts["dashboard.json"],
    }
    for name in ("datasources/prometheus.yaml", "dashboards/serving.yaml"):
        made[f"grafana/provisioning/{name}"] = templating.render(f"deploy/compose/{name}.j2", values)
    if spec.container.gateway_image:
        made["gateway/gateway.json"] = gateway_file.text(spec, triton="triton", api_keys=None)
    if values["gpu_variables"]:
        made[".env.example"] = templating.render("deploy/compose/env.j2", values)
    return made


def _need_one_machine(spec: DeploySpec) -> None:
    if spec.replicas.whole > 1:
        raise PlanInfeasible(
            f"Docker Compose runs one server on one machine; this load takes {spec.replicas.whole} "
            f"({spec.replicas.reason}).",
            hint="Try the target kubernetes, or --replicas 1 for a share of the load.",
        )


def _need_settings(settings: Mapping[str, str]) -> None:
    ports = [settings[name] for name in SETTINGS if name.endswith("_port")]
    for port in ports:
        if not (port.isdecimal() and 0 < int(port) < 65536):
            raise UsageError(f"{port!r} is no port.", hint="Write --set http_port=8000.")
        if ports.count(port) > 1:
            raise UsageError(f"Two services would have port {port}.", hint="Give each one of its own with --set.")
    for name in ("prometheus_image", "grafana_image"):
        if not settings[name]:
            raise UsageError(f"--set {name}= names no image.", hint=f"Write --set {name}={SETTINGS[name].default}.")
        names.need_image_name(settings[name], f"--set {name}=")
    if not DURATION.fullmatch(settings["retention"]):
        raise UsageError(f"--set retention={settings['retention']} is no duration.", hint="Write --set retention=15d.")


def _server(spec: DeploySpec) -> dict[str, Any]:
    """Return the service that serves: the container of `trtk serve --backend docker`."""
    made = spec.container
    service = compose_service(
        ContainerSpec(
            job="",
            image=_image(made.image),
            command=made.arguments,
            user=f"{made.uid}:{made.gid}",
            working_dir="/tmp",
            mounts=_mounts(spec),
            environment=made.environment,
            tmpfs=hardening.TMPFS,
            memory_bytes=spec.budgets.memory_bytes.whole,
            pids=ContainerOptions().pids,
            shm_bytes=spec.budgets.shm_bytes.whole,
            gpu_uuids=_gpus(spec),
            ulimits={} if spec.model.is_for_cpu else hardening.ULIMITS,  # pinned memory is for GPUs
            ports=_ports(spec),
            log_options=hardening.LOG_OPTIONS,
        )
    )
    probe = {"type": "bind", "source": "./probe", "target": str(PurePosixPath(pods.PROBE).parent), "read_only": True}
    service["volumes"] = [*_model_volume(spec), *service.get("volumes", []), probe]
    return service | {"healthcheck": _healthcheck(spec)}


def _image(reference: str) -> str:
    """Return an image by its digest alone where it has one: a tag beside it says nothing more."""
    name, mark, digest = reference.partition("@")
    return f"{name.rpartition(':')[0] if ':' in name.rpartition('/')[2] else name}{mark}{digest}" if mark else reference


def _yaml(service: dict[str, Any]) -> str:
    """Return a service as YAML, as deep as it stands in the file."""
    import yaml

    text: str = yaml.safe_dump(service, sort_keys=False, width=10_000, allow_unicode=True)
    return textwrap.indent(text.rstrip("\n"), " " * 4)


def _mounts(spec: DeploySpec) -> tuple[Mount, ...]:
    if spec.volume.kind != "hostpath":
        return ()
    return (Mount(source=spec.volume.source, target=spec.container.model_path),)


def _model_volume(spec: DeploySpec) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    if spec.volume.kind == "pvc":
        one: dict[str, Any] = {
            "type": "volume", "source": "model", "target": spec.container.model_path, "read_only": True,
        }  # fmt: skip
        made.append(one | ({"volume": {"subpath": spec.volume.sub_path}} if spec.volume.sub_path else {}))
    if spec.container.engines_path:
        made.append({"type": "volume", "source": "engines", "target": spec.container.engines_path})
    return made


def _ports(spec: DeploySpec) -> tuple[Published, ...]:
    made, settings = spec.container, spec.settings
    inside = {"http_port": made.http_port, "grpc_port": made.grpc_port, "metrics_port": made.metrics_port}
    return tuple(Published(address=LOOPBACK, port=int(settings[name]), container_port=inside[name]) for name in inside)


def _gpus(spec: DeploySpec) -> tuple[str, ...]:
    """Return the cards by UUID, or the variables that must name them: an index may be another card after a reboot."""
    if not spec.model.ranks:
        return ()
    named = tuple(one.strip() for one in spec.settings["gpus"].split(",") if one.strip())
    if wrong := [one for one in named if not UUID.fullmatch(one)]:
        raise UsageError(
            f"--set gpus names {wrong[0]}, which is no card's UUID: an index may be another card after a reboot.",
            hint="`nvidia-smi -L` lists them.",
        )
    if named and len(named) != spec.model.ranks:
        raise UsageError(
            f"--set gpus names {len(named)} cards; this takes {spec.model.ranks}.",
            hint="`nvidia-smi -L` lists their UUIDs.",
        )
    return named or tuple(f"${{{name}:?a UUID of nvidia-smi -L, in .env}}" for name in _gpu_variables(spec))


def _gpu_variables(spec: DeploySpec) -> list[str]:
    return [] if spec.settings["gpus"] else [f"TRTK_GPU_{rank}" for rank in range(spec.model.ranks)]


def _healthcheck(spec: DeploySpec) -> dict[str, Any]:
    """Return the deep probe of the kubernetes target: Triton stays ready when the engine behind it hangs."""
    return {
        "test": ["CMD", *pods.probe_command(spec, "health")],
        "interval": "15s",
        "timeout": f"{pods.PROBE_TIMEOUT_S + 5}s",
        "retries": 3,
        "start_period": f"{_start_s(spec)}s",
    }


def _start_s(spec: DeploySpec) -> int:
    compile_s = spec.budgets.compile_s.value if spec.budgets.compile_s else 0
    return math.ceil(spec.budgets.startup_s.value + compile_s)


def _stop_s(spec: DeploySpec) -> int:
    return math.ceil(1.5 * spec.budgets.drain_s.value) + STOP_MARGIN_S


def _scraped(spec: DeploySpec) -> tuple[monitoring.ScrapeTarget, ...]:
    made = spec.container
    addresses = {"triton": f"triton:{made.metrics_port}"}
    if made.openai_port:
        addresses["trtk-gateway"] = f"gateway:{made.openai_port}"
    return tuple(
        monitoring.ScrapeTarget(server=spec.name, job=job, address=address) for job, address in addresses.items()
    )


def _exporters(spec: DeploySpec) -> tuple[str, ...]:
    return (EXPORTERS[spec.model.flow], *(("gateway",) if spec.container.openai_port else ()))


def _guide(spec: DeploySpec) -> Guide:
    settings = spec.settings
    cards = f", the NVIDIA container toolkit, and {spec.model.ranks} of {spec.gpu.title}" if spec.model.ranks else ""
    return Guide(
        needs=(f"Docker with Compose 2.24 or newer (`docker compose version`){cards}.", *_volume_need(spec)),
        prepare=tuple(_preparations(spec)),
        apply=(
            Step(
                text=f"It comes back when every service is healthy; the first start may take {_start_s(spec)} s.",
                command=f"docker compose up --detach --wait --wait-timeout {_start_s(spec) + 120}",
            ),
        ),
        watch=(
            Step(
                text="What runs, and what the server says:",
                command="docker compose ps\ndocker compose logs --follow triton",
            ),
            Step(
                text=f"Grafana is at http://{LOOPBACK}:{settings['grafana_port']} (user `admin`), Prometheus and its "
                f"alerts at http://{LOOPBACK}:{settings['prometheus_port']}/alerts. From another machine, through ssh:",
                command=f"ssh -N -L {settings['grafana_port']}:{LOOPBACK}:{settings['grafana_port']} HOST",
            ),
        ),
        reach=Step(
            text="On the machine itself nothing needs to be done; from another one:",
            command=f"ssh -N -L {settings['grpc_port']}:{LOOPBACK}:{settings['grpc_port']} HOST",
        ),
        url=f"grpc://{LOOPBACK}:{settings['grpc_port']}",
        remove=(
            Step(
                text="With --volumes what Prometheus and Grafana kept goes too"
                + (", and the compiled engine." if spec.container.engines_path else "."),
                command="docker compose down --volumes",
            ),
        ),
        notes=_notes(spec),
    )


def _volume_need(spec: DeploySpec) -> tuple[str, ...]:
    if spec.volume.kind == "pvc":
        return (f"A Docker volume {spec.volume.source} with the folder {spec.model.folder} in it.",)
    return ()


def _preparations(spec: DeploySpec) -> list[Step]:
    steps = []
    if spec.volume.kind == "hostpath":
        steps.append(
            Step(
                text="Put the folder that `trtk build` made where the server reads it; its user "
                f"{spec.container.uid} must be able to read it:",
                command=f"sudo mkdir -p {quote(spec.volume.source)}\n"
                f"sudo rsync -a --chmod=Da+rx,Fa+r {quote(spec.model.folder)}/ {quote(spec.volume.source)}/",
            )
        )
    if _gpu_variables(spec):
        steps.append(
            Step(
                text="Name the cards; an index may be another card after a reboot:",
                command="nvidia-smi --query-gpu=uuid --format=csv,noheader | "
                f'head -n {spec.model.ranks} | awk \'{{print "TRTK_GPU_" NR-1 "=" $1}}\' > .env',
            )
        )
    steps.append(
        Step(
            text="A password for Grafana; nobody but root and you can enter the folder:",
            command="install -d -m 700 secrets\n"
            f"openssl rand -base64 24 > secrets/{SECRET}\n"
            f"chmod 444 secrets/{SECRET}",
        )
    )
    if not spec.container.is_digest_known:
        steps.append(
            Step(
                text="Tags move. This writes down which images they are today; start that file from then on:",
                command="docker compose config --resolve-image-digests > compose.pinned.yaml",
            )
        )
    return steps


def _notes(spec: DeploySpec) -> tuple[str, ...]:
    made = [
        "Docker starts a server again that died, by itself or for want of memory. `docker kill` and `docker stop` are "
        "orders to it: `docker compose up --detach` starts what they ended.",
        f"Every port is on {LOOPBACK}: Triton asks nobody who they are. Put a gateway with keys in front before others "
        "can reach it.",
        f"A stop waits up to {_stop_s(spec)} s for requests in flight: {spec.budgets.drain_s.reason}.",
    ]
    if spec.model.is_for_cpu:
        made.append("The Triton in a CPU image is older than the security floor: for development and rehearsals.")
    return tuple(made)


TARGET = Target(
    name="compose",
    title="Docker Compose",
    render=render,
    settings=SETTINGS,
    volumes=("hostpath", "pvc"),
)
