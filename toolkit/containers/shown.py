"""A container as others write it: the line of `docker run`, and the service of a compose file."""

from __future__ import annotations

from typing import Any

from toolkit.containers.running import ContainerSpec


def docker_run(spec: ContainerSpec) -> list[str]:
    """Return the `docker run` that does the same."""
    line = ["docker", "run", "--rm"]
    line += ["--name", spec.name] if spec.name else []
    line += ["--user", spec.user, "--workdir", spec.working_dir, "--read-only"]
    line += [word for path, options in spec.tmpfs.items() for word in ("--tmpfs", f"{path}:{options}")]
    line += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--ipc", "private"]
    line += ["--shm-size", str(spec.shm_bytes), "--pids-limit", str(spec.pids)]
    memory = str(spec.memory_bytes)
    line += ["--memory", memory, "--memory-swap", memory] if spec.memory_bytes else []
    line += ["--cpus", f"{spec.cpus:g}"] if spec.cpus else []
    line += [word for name, value in spec.ulimits.items() for word in ("--ulimit", f"{name}={value}:{value}")]
    line += ["--gpus", f'"device={",".join(spec.gpu_uuids)}"'] if spec.gpu_uuids else []
    line += [word for name, value in spec.log_options.items() for word in ("--log-opt", f"{name}={value}")]
    line += ["--network", spec.network]
    line += [
        word for one in spec.ports for word in ("--publish", f"{_host(one.address)}:{one.port}:{one.container_port}")
    ]
    for mount in spec.mounts:
        access = ",readonly" if mount.is_read_only else ""
        line += ["--mount", f"type=bind,source={mount.source},target={mount.target}{access}"]
    line += [word for name, value in spec.environment.items() for word in ("--env", f"{name}={value}")]
    return [*line, spec.image, *spec.command]


def compose_service(spec: ContainerSpec) -> dict[str, Any]:
    """Return the service of a compose file that does the same; what is empty is left out."""
    service: dict[str, Any] = {
        "image": spec.image,
        "command": [word.replace("$", "$$") for word in spec.command],  # compose would put variables in their place
        "user": spec.user,
        "working_dir": spec.working_dir,
        "environment": {name: value.replace("$", "$$") for name, value in spec.environment.items()},
        "ports": [f"{_host(one.address)}:{one.port}:{one.container_port}" for one in spec.ports],
        "network_mode": spec.network if spec.network == "host" else None,
        "volumes": [
            {
                "type": "bind",
                "source": one.source.replace("$", "$$"),
                "target": one.target,
                "read_only": one.is_read_only,
            }
            for one in spec.mounts
        ],
        "tmpfs": [f"{path}:{options}" for path, options in spec.tmpfs.items()],
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "ipc": "private",
        "shm_size": spec.shm_bytes,
        "mem_limit": spec.memory_bytes or None,
        "memswap_limit": spec.memory_bytes or None,
        "pids_limit": spec.pids,
        "cpus": spec.cpus or None,
        "ulimits": {name: {"soft": value, "hard": value} for name, value in spec.ulimits.items()},
        "deploy": _devices(spec),
        "logging": {"driver": "json-file", "options": dict(spec.log_options)} if spec.log_options else None,
    }
    return {key: value for key, value in service.items() if value not in (None, [], {})}


def _devices(spec: ContainerSpec) -> dict[str, Any] | None:
    if not spec.gpu_uuids:
        return None
    device = {"driver": "nvidia", "device_ids": list(spec.gpu_uuids), "capabilities": ["gpu"]}
    return {"resources": {"reservations": {"devices": [device]}}}


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
