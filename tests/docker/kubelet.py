"""Enough of a kubelet to run one pod of a manifest on a Docker daemon: its rights, volumes, probes, restarts."""

import re
import threading
import time
import urllib.error
import urllib.request

#: Of a container that ended: the first step of the kubelet's back-off.
BACK_OFF_S = 0.5
SIZES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


class Pod:
    """One pod of one container, run as its template says; CLAIMS are the folders behind its claims."""

    def __init__(self, client, template, network, *, claims, configs, folder):
        self.client, self.spec = client, template["spec"]
        (self.main,) = self.spec["containers"]
        self.restarts, self.is_started, self.is_ready, self.is_going = 0, False, False, False
        self.said = []
        self.container = client.containers.create(**self._arguments(network, claims, configs, folder))
        self.container.start()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _arguments(self, network, claims, configs, folder):
        shared, own = self.spec["securityContext"], self.main["securityContext"]
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        mounts, tmpfs, shm = {}, {}, None
        for mount in self.main["volumeMounts"]:
            volume, path = volumes[mount["name"]], mount["mountPath"]
            if "emptyDir" in volume and path == "/dev/shm":
                shm = size_of(volume["emptyDir"]["sizeLimit"])
            elif "emptyDir" in volume:
                tmpfs[path] = f"rw,exec,size={size_of(volume['emptyDir']['sizeLimit'])},mode=1777"
            else:
                source = (
                    claims[volume["persistentVolumeClaim"]["claimName"]]
                    if "persistentVolumeClaim" in volume
                    else config_folder(configs[volume["configMap"]["name"]], volume["configMap"], folder)
                )
                mounts[str(source)] = {"bind": path, "mode": "ro" if mount.get("readOnly") else "rw"}
        privileges = [] if own["allowPrivilegeEscalation"] else ["no-new-privileges:true"]
        return {
            "image": self.main["image"],
            "entrypoint": self.main.get("command"),
            "command": self.main.get("args"),
            "environment": {one["name"]: one["value"] for one in self.main["env"]},
            "user": f"{shared['runAsUser']}:{shared['runAsGroup']}",
            "read_only": own["readOnlyRootFilesystem"],
            "cap_drop": own["capabilities"]["drop"],
            "security_opt": privileges,
            "mem_limit": size_of(self.main["resources"]["limits"]["memory"]),
            "volumes": mounts,
            "tmpfs": tmpfs,
            "shm_size": shm,
            "network": network,
            "ports": {f"{one['containerPort']}/tcp": ("127.0.0.1", None) for one in self.main["ports"]},
        }

    def url(self, name):
        """Return where a port of the pod is reached: on loopback, for tests reach nothing else."""
        port = next(one["containerPort"] for one in self.main["ports"] if one["name"] == name)
        bound = self.container.attrs["NetworkSettings"]["Ports"].get(f"{port}/tcp")
        if not bound:
            raise ConnectionRefusedError("the container does not run")
        return f"http://127.0.0.1:{bound[0]['HostPort']}"

    def probe(self, kind):
        """Run a probe once; whether it succeeded."""
        probe = self.main[kind]
        if "exec" in probe:
            done = self.container.exec_run(probe["exec"]["command"])
            self.said.append((kind, done.exit_code, done.output.decode()))
            return done.exit_code == 0
        try:
            url = f"{self.url(probe['httpGet']['port'])}{probe['httpGet']['path']}"
            with urllib.request.urlopen(url, timeout=probe["timeoutSeconds"]) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _watch(self):
        while not self.is_going:
            self._until_started()
            self.is_ready = self.is_started and self.probe("readinessProbe")
            while self._is_running() and not self.is_going:
                time.sleep(0.2)
            self.is_ready = self.is_started = False
            if not self.is_going:  # restartPolicy: Always, the only one of a Deployment's pods
                self.restarts += 1
                time.sleep(BACK_OFF_S)
                self.container.start()

    def _until_started(self):
        """Ask the startup probe, oftener than the manifest says; no longer than it says."""
        probe = self.main["startupProbe"]
        deadline = time.monotonic() + probe["periodSeconds"] * probe["failureThreshold"]
        while not self.is_going and self._is_running():
            if self.probe("startupProbe"):
                self.is_started = True
                return
            assert time.monotonic() < deadline, self.container.logs().decode()
            time.sleep(0.25)

    def _is_running(self):
        self.container.reload()
        return self.container.attrs["State"]["Running"]

    def delete(self):
        """Take it out of the endpoints, run its hook, stop it; return its exit code and the seconds after the hook."""
        began = time.monotonic()
        self.is_ready, self.is_going = False, True
        self.container.exec_run(self.main["lifecycle"]["preStop"]["exec"]["command"])
        told = time.monotonic()
        left_s = self.spec["terminationGracePeriodSeconds"] - (told - began)
        self.container.stop(timeout=int(left_s))
        code = self.container.wait()["StatusCode"]
        return code, time.monotonic() - told

    def remove(self):
        self.is_going = True
        self.container.remove(force=True)


def size_of(text):
    """`512Mi` in bytes."""
    number, unit = re.fullmatch(r"(\d+)(\w*)", str(text)).groups()
    return int(number) * SIZES.get(unit, 1)


def config_folder(config, volume, folder):
    """Write the items of a ConfigMap as the kubelet mounts them; return their folder."""
    place = folder / volume["name"]
    place.mkdir(exist_ok=True)
    place.chmod(0o755)
    for item in volume["items"]:
        path = place / item["path"]
        path.write_text(config["data"][item["key"]])
        path.chmod(0o644)
    return place
