"""OpenStack: Terraform for servers with GPUs, and what they do at their first boot."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path
from typing import Any

from toolkit import registry, templating
from toolkit.containers import ContainerSpec, Mount, Published, docker_run, hardening
from toolkit.deploy import pods
from toolkit.deploy.guide import Guide, Step, readme
from toolkit.deploy.target import Setting, Target
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import ContainerOptions, DeploySpec

#: Versions and keys of what a server installs.
PINS = Path(__file__).parents[1] / "openstack.toml"
TERRAFORM = ("versions.tf", "variables.tf", "main.tf", "outputs.tf", "cloud-init.yaml.tftpl")
SCRIPTS = ("setup.sh", "model.sh", "serve.sh", "watch.sh", "join.sh")
VERSION = re.compile(r"(1\.\d+\.\d+)?")
PATH = re.compile(r"/[A-Za-z0-9/_.-]*")
#: Where Terraform's or the server's own words go in a line that is quoted otherwise.
LISTEN = "LISTEN_ADDRESS"
#: After requests in flight have ended.
END_MARGIN_S = 15
PROBE_FILE, PROBE_EVERY_S = "/usr/local/lib/trtk/probe.py", 30
#: The volume holds the model twice while a new one is copied beside the old, and the compiled engine.
COPIES = 3
SPARE_GB = 5
ADDRESSES = "terraform output -json addresses | tr -d '[]\"' | tr , '\\n'"

SETTINGS = {
    "flavor": Setting(default="", help="flavor with the GPUs; empty: gpu-CARD where one GPU is enough, else asked for"),
    "image_name": Setting(default="ubuntu-24.04", help="image with Ubuntu 24.04"),
    "network": Setting(default="", help="network of the servers; empty: asked for at `terraform apply`"),
    "key_pair": Setting(default="", help="SSH key pair; empty: asked for at `terraform apply`"),
    "join_kubernetes": Setting(default="", help="version of a cluster to join instead of serving, 1.35.1"),
}


def render(spec: DeploySpec) -> dict[str, str]:
    """Return the Terraform module, its scripts and README.md."""
    _need_possible(spec)
    root = spec.volume.source
    gpus = spec.model.ranks
    start_s = spec.budgets.startup_s.value + (spec.budgets.compile_s.value if spec.budgets.compile_s else 0)
    volume_gb = math.ceil(spec.model.folder_bytes * COPIES / 1e9) + SPARE_GB
    values: dict[str, Any] = {
        "spec": spec,
        "gpus": gpus,
        "settings": spec.settings,
        "pins": registry.toml_document(PINS),
        "flavor": spec.settings["flavor"] or (f"gpu-{spec.gpu.name}" if gpus == 1 else ""),
        "volume_gb": volume_gb,
        "volume_reason": f"{COPIES} times the {spec.model.folder_bytes / 1e9:.1f} GB of the model: a new one beside "
        "the old, and a compiled engine",
        "root": root,
        "model_dir": f"{root}/model",
        "engines_dir": f"{root}/engines",
        "stop_s": math.ceil(spec.budgets.drain_s.value) + END_MARGIN_S,
        "run": run_lines(spec),
        "probe": pods.probe_command(spec, "alive"),
        "probe_file": PROBE_FILE,
        "every_s": PROBE_EVERY_S,
        "alive_failures": pods.ALIVE_FAILURES,
        "start_failures": math.ceil(start_s / PROBE_EVERY_S),
        "start_reason": spec.budgets.startup_s.reason,
    }
    files = {
        **{name: f"{name}.j2" for name in TERRAFORM},
        **{f"scripts/{name}": f"scripts/{name}.j2" for name in SCRIPTS},
        "join.yaml.example": "join.yaml.example.j2",
    }
    made = {name: templating.render(f"deploy/openstack/{template}", values) for name, template in files.items()}
    made["scripts/probe.py"] = templating.source("deploy/kubernetes/probe.py")
    return {**made, "README.md": readme(spec, _guide(spec, values))}


def run_lines(spec: DeploySpec) -> list[str]:
    """Return the `docker run` of `trtk serve --backend docker`, an option with its value a line."""
    made = container(spec)
    words = docker_run(made)
    if spec.model.ranks:
        words[2:2] = ["--gpus", "all"]
    # The journal has the log: a second one beside it would only fill the disk.
    words[2:2] = ["--log-driver", "none"]
    end = words.index(made.image)
    quoted = [shlex.quote(word).replace(LISTEN, '"$LISTEN"') for word in words]
    lines = ["docker run"]
    for word, shown in zip(words[2:end], quoted[2:end], strict=True):
        if word.startswith("--"):
            lines.append(shown)
        else:
            lines[-1] += f" {shown}"
    return [*lines, quoted[end], " ".join(quoted[end + 1 :])]


def container(spec: DeploySpec) -> ContainerSpec:
    """Return the container of one server."""
    inside, root = spec.container, spec.volume.source
    ports = (inside.http_port, inside.grpc_port, inside.metrics_port)
    mounts = [Mount(source=f"{root}/model", target=inside.model_path), Mount(source=PROBE_FILE, target=pods.PROBE)]
    if inside.engines_path:
        mounts.append(Mount(source=f"{root}/engines", target=inside.engines_path, is_read_only=False))
    return ContainerSpec(
        job="",
        name="trtk",
        image=inside.image,
        command=inside.arguments,
        user=f"{inside.uid}:{inside.gid}",
        working_dir="/tmp",
        mounts=tuple(mounts),
        environment=inside.environment,
        tmpfs=hardening.TMPFS,
        memory_bytes=spec.budgets.memory_bytes.whole,
        pids=ContainerOptions().pids,
        shm_bytes=spec.budgets.shm_bytes.whole,
        ulimits=hardening.ULIMITS if spec.model.ranks else {},
        network="bridge",
        ports=tuple(Published(address=LISTEN, port=port, container_port=port) for port in ports),
    )


def _need_possible(spec: DeploySpec) -> None:
    if spec.container.openai_port:
        raise PlanInfeasible(
            "These servers have Triton alone, without the OpenAI endpoint.",
            hint="Leave --openai out, or let the servers join a cluster (--set join_kubernetes=…) and deploy there.",
        )
    if not PATH.fullmatch(spec.volume.source):
        raise UsageError(
            f"{spec.volume.source!r} has letters that Terraform, systemd or a shell would read as their own.",
            hint="Write --model-volume hostpath:/srv/NAME.",
        )
    if spec.volume.source.count("/") < 2:
        raise UsageError(
            f"A volume cannot be mounted on {spec.volume.source}, which the system itself needs.",
            hint="Write --model-volume hostpath:/srv/NAME.",
        )
    version = spec.settings["join_kubernetes"]
    if not VERSION.fullmatch(version):
        raise UsageError(
            f"--set join_kubernetes={version} is no version of Kubernetes.", hint="Write --set join_kubernetes=1.35.1."
        )


def _guide(spec: DeploySpec, values: dict[str, Any]) -> Guide:
    name, root = spec.name, spec.volume.source
    copy = (
        f"rsync -a --rsync-path='sudo rsync' engines/{shlex.quote(spec.model.folder)}/ "
        f'"ubuntu@$server:{root}/model.new/"\n'
        f'ssh "ubuntu@$server" \'sudo rm -rf {root}/model.old; sudo mv {root}/model {root}/model.old 2>/dev/null; '
        f"sudo mv {root}/model.new {root}/model'"
    )
    return Guide(
        needs=(
            "Terraform 1.6 or OpenTofu, and a login in ~/.config/openstack/clouds.yaml, which OS_CLOUD names.",
            f"A flavor with {values['gpus']} x {spec.gpu.title}." if values["gpus"] else "A flavor with enough memory.",
            "An image with Ubuntu 24.04 and cloud-init; without Secure Boot, or with a key for DKMS modules enrolled.",
        ),
        prepare=(
            Step(
                text="Say who may reach the servers; nobody may by default:",
                command="cat > terraform.tfvars <<'END'\n"
                'network_name = "…"\nkey_pair     = "…"\nssh_cidrs    = ["…/32"]\nclient_cidrs = []\nEND',
            ),
            Step(text="Fetch the provider; its lock file belongs in git:", command="terraform init"),
        ),
        apply=(
            Step(text="Look at what will be made, then make it:", command="terraform apply"),
            Step(
                text="Copy the model to each server's volume, once; it is served as soon as it is there:",
                command=f"for server in $({ADDRESSES}); do\n"
                + "\n".join(f"  {line}" for line in copy.splitlines())
                + "\ndone",
            ),
            Step(
                text="With join_kubernetes set the servers serve nothing by themselves; they wait for this document, "
                "filled in, and forget its token:",
                command='scp join.yaml "ubuntu@$server:" && ssh "ubuntu@$server" \'sudo install -m 0600 join.yaml '
                "/etc/trtk/join.yaml && shred --remove join.yaml'",
            ),
        ),
        watch=(
            Step(text="One of the servers:", command=f"server=$({ADDRESSES} | head -1)"),
            Step(
                text="The first boot, some ten minutes with its reboot:",
                command='ssh "ubuntu@$server" cloud-init status --wait',
            ),
            Step(text="The server:", command='ssh "ubuntu@$server" journalctl --follow --unit trtk-server'),
        ),
        reach=Step(
            text="Without client_cidrs it listens on its own loopback; through ssh:",
            command=f'ssh -fN -L 127.0.0.1:8001:127.0.0.1:{spec.container.grpc_port} "ubuntu@$server"',
        ),
        url="grpc://127.0.0.1:8001",
        remove=(Step(text="The servers and their volumes, the model on them too:", command="terraform destroy"),),
        notes=(
            "No password, key or token is in these files or in the state; what joins a cluster goes over ssh.",
            "Another cloud-init or image replaces the servers; the volumes with the models stay.",
            "Driver, container toolkit and the fingerprints of their keys are in scripts/setup.sh; an update of them "
            "replaces the servers, one `terraform apply -target` at a time if you like.",
            f"{name}'s files were parsed and checked, and its scripts run with stand-ins; no cloud has seen them.",
        ),
    )


TARGET = Target(name="openstack", title="OpenStack", render=render, settings=SETTINGS, volumes=("hostpath",))
