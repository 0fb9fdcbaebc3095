"""The OpenStack target: Terraform with attributes that the provider has, and a first boot that runs with stand-ins."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.deployments import NVIDIA, spec_of
from toolkit import deploy, gpus, registry, releases
from toolkit.deploy.targets import openstack
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.machine import checks, drivers
from toolkit.specs import ModelVolume

hcl2 = pytest.importorskip("hcl2")

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
#: What the provider's documentation (3.x) lists for each resource; blocks as names of their own.
ATTRIBUTES = {
    "openstack_compute_instance_v2": {
        *("region", "name", "image_id", "image_name", "flavor_id", "flavor_name", "user_data", "security_groups"),
        *("availability_zone_hints", "availability_zone", "network", "network_mode", "metadata", "config_drive"),
        *("key_pair", "block_device", "scheduler_hints", "personality", "stop_before_destroy", "force_delete"),
        *("power_state", "tags", "vendor_options", "hypervisor_hostname"),
    },
    "openstack_compute_instance_v2.network": {"uuid", "name", "port", "fixed_ip_v4", "access_network"},
    "openstack_compute_instance_v2.scheduler_hints": {
        *("group", "different_host", "same_host", "query", "target_cell", "different_cell", "build_near_host_ip"),
        "additional_properties",
    },
    "openstack_compute_servergroup_v2": {"region", "name", "policies", "value_specs", "rules"},
    "openstack_compute_volume_attach_v2": {
        *("region", "instance_id", "volume_id", "device", "multiattach", "vendor_options"),
    },
    "openstack_blockstorage_volume_v3": {
        *("region", "size", "enable_online_resize", "availability_zone", "consistency_group_id", "description"),
        *("metadata", "name", "source_replica", "snapshot_id", "source_vol_id", "image_id", "backup_id"),
        *("volume_type", "volume_retype_policy", "scheduler_hints"),
    },
    "openstack_networking_port_v2": {
        *("region", "name", "description", "network_id", "admin_state_up", "mac_address", "tenant_id", "device_owner"),
        *("security_group_ids", "no_security_groups", "device_id", "fixed_ip", "no_fixed_ip", "allowed_address_pairs"),
        *("extra_dhcp_option", "port_security_enabled", "value_specs", "tags", "binding", "dns_name", "qos_policy_id"),
    },
    "openstack_networking_secgroup_v2": {
        *("region", "name", "description", "tenant_id", "delete_default_rules", "stateful", "tags"),
    },
    "openstack_networking_secgroup_rule_v2": {
        *("region", "description", "direction", "ethertype", "protocol", "port_range_min", "port_range_max"),
        *("remote_ip_prefix", "remote_group_id", "security_group_id", "tenant_id"),
    },
}
#: Terraform's own, of any resource.
META = {"count", "for_each", "depends_on", "lifecycle", "provider"}
#: Of the provider, everything that is a secret or stands for one.
SECRETS = {"admin_pass", "password", "token", "application_credential_secret", "user_name", "auth_url", "personality"}


def parsed(texts):
    return {name: hcl2.loads(text) for name, text in texts.items() if name.endswith(".tf")}


def plain(block):
    return {name.strip('"'): value for name, value in block.items() if not name.startswith("__")}


def resources(document):
    """Yield kind and attributes of each resource, and of the blocks in it as KIND.BLOCK."""
    for resource in document["resource"]:
        for kind, named in plain(resource).items():
            for attributes in plain(named).values():
                yield kind, plain(attributes)
                for name, value in plain(attributes).items():
                    for block in value if isinstance(value, list) else []:
                        if isinstance(block, dict) and block.get("__is_block__"):
                            yield f"{kind}.{name}", plain(block)


@pytest.mark.parametrize("flow", ["engine", "llmapi", "openvino"])
def test_every_attribute_is_one_that_the_provider_documents(flow):
    texts = deploy.render(spec_of("openstack", flow))

    found = list(resources(parsed(texts)["main.tf"]))
    assert {kind for kind, _ in found} == set(ATTRIBUTES)
    for kind, attributes in found:
        assert set(attributes) <= ATTRIBUTES[kind] | META, kind
    assert deploy.render(spec_of("openstack", flow)) == texts


def test_every_variable_that_is_read_is_declared_and_has_a_description():
    documents = parsed(deploy.render(spec_of("openstack")))
    declared = {
        name: plain(body) for block in documents["variables.tf"]["variable"] for name, body in plain(block).items()
    }
    text = json.dumps({name: document for name, document in documents.items() if name != "variables.tf"})

    assert set(re.findall(r"var\.(\w+)", text)) == set(declared)
    assert all(body["description"] and body["type"] for body in declared.values())
    assert declared["flavor_name"]["default"] == '"gpu-a4500"'
    assert {name for name, body in declared.items() if "default" not in body} == {"network_name", "key_pair"}


def test_nothing_secret_is_in_the_state():
    """The state has every attribute in plain text, user_data too."""
    texts = deploy.render(spec_of("openstack", settings={"join_kubernetes": "1.35.1"}))
    documents = parsed(texts)

    provider = plain(plain(documents["versions.tf"]["provider"][0])["openstack"])
    assert provider == {}
    assert not SECRETS & {name for _, attributes in resources(documents["main.tf"]) for name in attributes}
    told = json.dumps(list(resources(documents["main.tf"])))
    assert "sensitive" not in texts["variables.tf"]
    assert not re.search(r"token|secret|password", told.lower().replace("secgroup", ""))
    assert not re.search(r"(?i)token\s*[:=]\s*\S|password\s*[:=]", filled(texts))
    assert yaml.safe_load(texts["join.yaml.example"])["discovery"]["bootstrapToken"]["token"] == ""


def filled(texts, **changes):
    """Return cloud-init's document as Terraform's templatefile makes it."""
    given = {"volume_id": "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "listen": "127.0.0.1", "kubernetes_version": ""}
    scripts = {name: json.dumps(texts[f"scripts/{name}.sh"]) for name in ("setup", "model", "serve", "watch", "join")}
    scripts["probe"] = json.dumps(texts["scripts/probe.py"])
    values = {**given, **scripts, **changes}
    return re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], texts["cloud-init.yaml.tftpl"])


@pytest.mark.parametrize("flow", ["engine", "openvino"])
def test_the_first_boot_is_a_cloud_config_that_writes_these_files(flow):
    texts = deploy.render(spec_of("openstack", flow))

    text = filled(texts)
    document = yaml.safe_load(text)
    files = {one["path"]: one for one in document["write_files"]}

    assert text.startswith("#cloud-config\n")
    # Terraform would take any of these for its own.
    assert "%{" not in texts["cloud-init.yaml.tftpl"]
    known = {"package_update", "package_upgrade", "packages", "write_files", "runcmd", "power_state"}
    assert set(document) <= known
    assert all(set(one) == {"path", "permissions", "content"} for one in files.values())
    assert {one["permissions"] for one in files.values()} == {"0644", "0755"}
    assert files["/usr/local/sbin/trtk-setup"]["content"] == texts["scripts/setup.sh"]
    assert files["/etc/trtk/settings"]["content"].splitlines() == [
        *("VOLUME_ID=0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "LISTEN=127.0.0.1", "KUBERNETES_VERSION="),
    ]
    is_gpu = flow == "engine"
    assert ("/etc/systemd/system/trtk-gpu.service" in files) == is_gpu
    assert ("power_state" in document) == is_gpu
    assert ("nvidia" in text) == is_gpu
    # user_data may have 64 KiB, and is sent in base64.
    assert len(text) * 4 / 3 < 60_000


def test_what_a_model_is_called_is_nobodys_command():
    spec = spec_of("openstack")
    named = {"model": "a\nrm -rf /", "folder": 'x"\n${file("/etc/passwd")}'}
    texts = deploy.render(dataclasses.replace(spec, model=dataclasses.replace(spec.model, **named)))

    for name, text in texts.items():
        assert name == "README.md" or not re.search(r"^rm -rf", text, re.MULTILINE), name
    volume = next(found for kind, found in resources(parsed(texts)["main.tf"]) if kind.startswith("openstack_block"))
    assert volume["description"] == '"x\\"\\n$${file(\\"/etc/passwd\\")}, build bbbbbbbbbbbb"'


@pytest.mark.skipif(not shutil.which("cloud-init"), reason="cloud-init is not here")
def test_cloud_inits_own_schema_takes_it(tmp_path):
    (tmp_path / "user-data").write_text(filled(deploy.render(spec_of("openstack"))))

    line = ["cloud-init", "schema", "--config-file", str(tmp_path / "user-data")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


#: Stand for the programs of a fresh server; each says how it was called.
STAND_IN = """#!/bin/sh
echo "${{0##*/}} $*" >> {log}
{more}
"""
MORE = {
    "curl": 'while [ $# -gt 1 ]; do [ "$1" = --output ] && echo a key > "$2"; shift; done',
    "gpg": 'case "$1" in --show-keys) cat {keys};; *) while [ "$1" != --output ]; do shift; done; cat > "$2";; esac',
    "containerd": "echo 'SystemdCgroup = false'",
    "blkid": "exit {blkid}",
    "mountpoint": "exit 1",
    "find": "echo {device}",
    "install": 'while [ $# -gt 1 ]; do [ "$1" = -d ] && made=y; shift; done; mkdir -p "$1"',
}
PROGRAMS = (
    "apt-get",
    "apt-mark",
    "nvidia-ctk",
    "systemctl",
    "swapoff",
    "sysctl",
    "modprobe",
    "mkfs.ext4",
    "mount",
    "docker",
)


class Server:
    """A root folder with the programs that a first boot calls."""

    def __init__(self, folder, *, keys=None, blkid=2, version=""):
        self.folder, self.log = folder, folder / "log"
        pins = registry.toml_document(openstack.PINS)
        known = keys or [pins[name]["fingerprint"] for name in ("cuda", "toolkit", "kubernetes")]
        (folder / "keys").write_text("".join(f"fpr:::::::::{key}:\n" for key in known))
        (folder / "bin").mkdir()
        values = {"keys": folder / "keys", "blkid": blkid, "device": "/dev/disk/by-id/virtio-0a1b2c3d-4e5f-6071-8"}
        for name in {*PROGRAMS, *MORE}:
            path = folder / "bin" / name
            path.write_text(STAND_IN.format(log=self.log, more=MORE.get(name, "").format(**values)))
            path.chmod(0o755)
        for name in ("trtk", "apt/sources.list.d", "apt/preferences.d", "modules-load.d", "sysctl.d"):
            (folder / "etc" / name).mkdir(parents=True)
        (folder / "etc" / "fstab").write_text("/dev/vda1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n")
        self.set(VOLUME_ID="0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", LISTEN="127.0.0.1", KUBERNETES_VERSION=version)

    def set(self, **settings):
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.folder / "etc" / "trtk" / "settings").write_text(text)

    def run(self, script):
        text = re.sub(r"(?<![\w.])/(etc|srv)/", rf"{self.folder}/\1/", script)
        environment = {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin"}
        return subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True, check=False)

    @property
    def called(self):
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def scripts():
    return {name: text for name, text in deploy.render(spec_of("openstack")).items() if name.startswith("scripts/")}


def test_the_scripts_are_what_shellcheck_takes(tmp_path):
    for flow in ("engine", "llmapi", "openvino"):
        for name, text in deploy.render(spec_of("openstack", flow)).items():
            if name.endswith(".sh"):
                path = tmp_path / Path(name).name
                path.write_text(text)
                done = subprocess.run([SHELLCHECK, path], capture_output=True, text=True, check=False)
                assert (done.returncode, done.stdout) == (0, "")


def test_the_driver_and_the_toolkit_come_pinned_from_repositories_with_keys_of_their_own(tmp_path, scripts):
    server = Server(tmp_path)

    done = server.run(scripts["scripts/setup.sh"])

    assert done.returncode == 0, done.stderr
    lists = {path.name: path.read_text() for path in (tmp_path / "etc/apt/sources.list.d").iterdir()}
    assert set(lists) == {"nvidia-cuda.list", "nvidia-container-toolkit.list"}
    keyring = f"{tmp_path}/etc/apt/keyrings"
    assert lists["nvidia-container-toolkit.list"] == (
        f"deb [arch=amd64 signed-by={keyring}/nvidia-container-toolkit.gpg] "
        "https://nvidia.github.io/libnvidia-container/stable/deb/amd64 /\n"
    )
    installed = [
        line.split(" install ")[1] for line in server.called if line.startswith("apt-get") and "install" in line
    ]
    assert installed[0] == "nvidia-driver-pinning-595.71.05"
    assert installed[1].endswith(" nvidia-open")
    assert installed[2] == (
        "nvidia-container-toolkit=1.20.0-1 nvidia-container-toolkit-base=1.20.0-1 "
        "libnvidia-container-tools=1.20.0-1 libnvidia-container1=1.20.0-1"
    )
    assert installed[3:] == ["docker.io"]
    assert "apt-key" not in scripts["scripts/setup.sh"]
    assert "nvidia-ctk runtime configure --runtime=docker" in server.called
    assert "systemctl enable trtk-model.service trtk-server.path" in server.called


def test_a_key_with_another_fingerprint_stops_it_before_anything_is_installed(tmp_path, scripts):
    server = Server(tmp_path, keys=["0" * 40])

    done = server.run(scripts["scripts/setup.sh"])

    assert done.returncode == 4
    assert "is not EB693B3035CD5710E231E123A4B469963BF863CC" in done.stderr
    assert not [line for line in server.called if "install" in line and line.startswith("apt-get")]
    assert not list((tmp_path / "etc/apt/sources.list.d").iterdir())


def test_a_server_that_joins_a_cluster_gets_its_versions_and_no_docker(tmp_path, scripts):
    server = Server(tmp_path, version="1.35.1")

    done = server.run(scripts["scripts/setup.sh"])

    assert done.returncode == 0, done.stderr
    assert "core:/stable:/v1.35/deb/ /" in (tmp_path / "etc/apt/sources.list.d/kubernetes.list").read_text()
    assert any("containerd kubeadm=1.35.1-* kubelet=1.35.1-*" in line for line in server.called)
    assert not any("docker" in line for line in server.called)
    assert (tmp_path / "etc/containerd/config.toml").read_text() == "SystemdCgroup = true\n"
    assert "swap" not in (tmp_path / "etc/fstab").read_text()
    assert "systemctl enable --now trtk-model.service trtk-join.path" in server.called


@pytest.mark.parametrize(("blkid", "code", "is_made"), [(2, 0, True), (0, 0, False), (4, 5, False)])
def test_a_volume_is_formatted_only_where_nothing_is_on_it(tmp_path, scripts, blkid, code, is_made):
    server = Server(tmp_path, blkid=blkid)

    done = server.run(scripts["scripts/model.sh"])

    assert done.returncode == code, done.stderr
    device = "/dev/disk/by-id/virtio-0a1b2c3d-4e5f-6071-8"
    assert (f"mkfs.ext4 -q -L trtk {device}" in server.called) == is_made
    assert (f"mount -o nodev,nosuid {device} {tmp_path}/srv/models/demo" in server.called) == (code == 0)


def test_the_server_is_the_container_of_trtk_serve(tmp_path, scripts):
    server = Server(tmp_path)
    server.set(LISTEN="0.0.0.0")

    done = server.run(scripts["scripts/serve.sh"])

    assert done.returncode == 0, done.stderr
    (line,) = server.called
    options, _, command = line.partition(f" {NVIDIA} ")
    assert command.startswith("python3 /bundle/start.py -- --id=demo-a4500-int4")
    for word in (
        *("--gpus all", "--read-only", "--cap-drop ALL", "--security-opt no-new-privileges:true", "--user 1000:1000"),
        *("--publish 0.0.0.0:8000:8000", "--pids-limit 4096", f"--shm-size {2 << 30}", f"--memory {16 << 30}"),
        f"source={tmp_path}/srv/models/demo/model,target=/bundle,readonly",
        f"source={tmp_path}/srv/models/demo/engines,target=/engines",
    ):
        assert word in options


def test_a_server_whose_engine_answers_nobody_is_started_again(tmp_path, scripts):
    """A start has its own time; afterwards it takes ten failures in a row, and one answer forgets those before."""
    server = Server(tmp_path)
    exec_ = '[ "$1" != exec ] || { n=$(grep -c "docker exec" {log}); [ $n = 7 ] || [ $n = 12 ]; }'
    path = tmp_path / "bin" / "docker"
    path.write_text(STAND_IN.format(log=server.log, more=exec_.replace("{log}", str(server.log))))
    script = scripts["scripts/watch.sh"].replace("sleep ", ": ")

    done = server.run(script)

    assert done.returncode == 0, done.stderr
    probes = [line for line in server.called if line.startswith("docker exec")]
    assert probes[0].startswith("docker exec trtk python3 /opt/trtk-probe/probe.py --model ensemble --http 8000")
    assert "limit=50\n" in script  # 300 s to start and 1200 s to compile, every 30 s
    assert len(probes) == 12 + 10
    assert server.called[-1] == "systemctl restart --no-block trtk-server"


def test_a_join_document_is_used_once_and_does_not_stay(tmp_path, scripts):
    server = Server(tmp_path)
    for name in ("kubeadm", "shred"):
        path = tmp_path / "bin" / name
        path.write_text(STAND_IN.format(log=server.log, more='[ "${0##*/}" = shred ] && rm "$2" || exit 1'))
        path.chmod(0o755)
    (tmp_path / "etc/trtk/join.yaml").write_text("token: abcdef.0123456789abcdef")

    done = server.run(scripts["scripts/join.sh"])

    assert done.returncode == 1
    assert [line.split()[0] for line in server.called] == ["kubeadm", "shred"]
    assert not (tmp_path / "etc/trtk/join.yaml").exists()


def test_the_pinned_driver_runs_every_release_that_is_known_and_the_toolkit_is_a_safe_one():
    pins = registry.toml_document(openstack.PINS)
    driver = pins["driver"]["version"]

    behind = [
        release.name
        for release in releases.catalogue()
        if not drivers.is_at_least(driver, drivers.needed_for(release.cuda).released_with)
    ]
    assert behind == []
    assert drivers.is_at_least(pins["toolkit"]["version"].partition("-")[0], checks.SAFE_TOOLKIT)


def terraform(*line, cwd):
    environment = {**os.environ, "CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": os.devnull}
    line = ("terraform", *line)
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def alone(tmp_path):
    """The module without its provider, which is not to be had here: variables, locals, and the servers' user data."""
    if not shutil.which("terraform"):
        pytest.skip("Terraform is not here")
    texts = deploy.render(spec_of("openstack", settings={"network": "net", "key_pair": "key"}))
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert terraform("fmt", "-check", "-diff", cwd=tmp_path).stdout == ""
    main = texts["main.tf"]
    user_data = re.search(r"user_data = (templatefile\(.*?\n  \}\))", main, re.DOTALL)[1]
    user_data = re.sub(r"openstack_\S+\.id", '"0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"', user_data)
    names = main[: main.index("data ")]
    (tmp_path / "main.tf").write_text(
        f'{names}\noutput "user_data" {{\n  value = {user_data}\n}}\n'
        'output "openings" {\n  value = [for one in local.openings : [one[0], tonumber(one[1])]]\n}\n'
    )
    for name in ("versions.tf", "outputs.tf"):
        (tmp_path / name).unlink()
    return tmp_path


def test_terraform_itself_opens_what_is_named_and_makes_that_user_data(alone):
    texts = deploy.render(spec_of("openstack"))
    named = {
        "client_cidrs": ["10.0.0.0/24", "fd00::/64"],
        "monitoring_cidrs": ["10.1.0.0/24"],
        "ssh_cidrs": ["10.2.0.1/32"],
    }
    words = [word for name, value in named.items() for word in ("-var", f"{name}={json.dumps(value)}")]

    done = terraform("apply", "-auto-approve", "-input=false", *words, cwd=alone)

    assert done.returncode == 0, done.stderr
    outputs = {
        name: one["value"] for name, one in json.loads((alone / "terraform.tfstate").read_text())["outputs"].items()
    }
    assert sorted(outputs["openings"]) == [
        *(["10.0.0.0/24", 8000], ["10.0.0.0/24", 8001], ["10.1.0.0/24", 8002], ["10.2.0.1/32", 22]),
        *(["fd00::/64", 8000], ["fd00::/64", 8001]),
    ]
    assert yaml.safe_load(outputs["user_data"]) == yaml.safe_load(filled(texts, listen="0.0.0.0"))


def test_terraform_itself_refuses_the_whole_world(alone):
    worlds = ('["0.0.0.0/0"]', '["::/0"]', '["here"]')

    ends = [terraform("plan", "-input=false", "-var", f"ssh_cidrs={world}", cwd=alone) for world in worlds]

    assert [end.returncode for end in ends] == [1, 1, 1]
    assert all("Name your own network, not the whole world." in end.stderr for end in ends)


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"tp": 16, "nodes": 2}, PlanInfeasible, "OpenStack cannot run one replica on several nodes"),
        ({"volume": "oci"}, PlanInfeasible, "takes no model volume of the kind oci"),
        ({"autoscale": "hpa"}, PlanInfeasible, "OpenStack cannot scale by itself"),
        ({"volume": ModelVolume(kind="hostpath", source="/srv/${file(1)}")}, UsageError, "has letters that Terraform"),
        ({"volume": ModelVolume(kind="hostpath", source="/srv")}, UsageError, "cannot be mounted on /srv"),
        ({"settings": {"join_kubernetes": "v1.35"}}, UsageError, "--set join_kubernetes=v1.35 is no version"),
    ],
)
def test_a_wrong_wish_gets_a_sentence(changes, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        deploy.render(spec_of("openstack", **changes))


def test_a_flavor_is_guessed_for_one_gpu_alone():
    """Clouds name flavors as they like; that of several GPUs is asked for."""
    one, two = (parsed(deploy.render(spec_of("openstack", tp=tp)))["variables.tf"]["variable"] for tp in (1, 2))

    def default(variables):
        return next(plain(plain(one)["flavor_name"]) for one in variables if "flavor_name" in plain(one)).get("default")

    assert (default(one), default(two)) == (f'"gpu-{gpus.get("a4500").name}"', None)
