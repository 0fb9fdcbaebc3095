"""The container that serves: its image, its command, what it may touch, derived from what is served."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit import workspace
from toolkit.containers import ContainerSpec, Mount, Published, hardening
from toolkit.errors import UsageError
from toolkit.serve import ports, targets
from toolkit.serve.backend import Identity, triton_id
from toolkit.serve.targets import Artefact
from toolkit.specs import ServeSpec

#: Where the images' own Dockerfiles put what is served.
ENGINE, BUNDLE, ENGINES = "/engine", "/bundle", "/engines"
#: Inside a network of its own, a container listens on the usual ports.
HTTP, GRPC, METRICS = 8000, 8001, 8002
#: Of the daemon's memory, so that a server that grows is killed and not the machine it runs on.
MEMORY_SHARE = 0.9
#: Python backends, NCCL and MPI go through /dev/shm; Docker's own 64 MiB are too few.
SHM_BYTES, SHM_BYTES_PER_RANK = 1 << 30, 1 << 28
ENVIRONMENT = {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
GPU_ENVIRONMENT = {
    # A uid without a name in the image: torch asks for the name, and finds it here first.
    "USER": "trtk",
    "LOGNAME": "trtk",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRTK_ENGINES": ENGINES,
    # Copying straight from another rank's memory needs a capability that is dropped.
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
}
#: uid:gid of the images' own user, where root would otherwise run.
USER = "1000:1000"


def job(server_id: str) -> str:
    """Return the job that a server's container is labelled with."""
    return f"serve-{server_id}"


def container(spec: ServeSpec, identity: Identity | None) -> ContainerSpec:
    """Return the container of a built folder; without an identity, for those who keep it themselves."""
    found = _served(spec)
    asked = spec.container
    return ContainerSpec(
        job=job(identity.server_id) if identity else "",
        name=f"trtk-{workspace.slug(spec.name)}-{identity.server_id[:8]}" if identity else "",
        image=asked.image_id or asked.image or found.image,
        command=_command(spec, identity, found),
        user="0:0" if asked.is_rootless else user(),
        working_dir="/tmp",
        mounts=(*_mounts(found), *_apart(spec, found)),
        environment={**ENVIRONMENT, **({} if found.is_for_cpu else GPU_ENVIRONMENT)},
        tmpfs=hardening.TMPFS,
        memory_bytes=asked.memory_bytes,
        pids=asked.pids,
        shm_bytes=asked.shm_bytes or SHM_BYTES + found.world_size * SHM_BYTES_PER_RANK,
        gpu_uuids=asked.gpu_uuids,
        ulimits=hardening.ULIMITS,
        network=asked.network,
        ports=_published(spec),
        cpus=asked.cpus,
        log_options=hardening.LOG_OPTIONS,
    )


def need_servable(spec: ServeSpec) -> Artefact:
    """Return what a folder holds, if a container can serve it."""
    if not spec.folder:
        raise UsageError(
            f"{spec.repository} says of no engine that it is for; the docker backend serves folders that `trtk build`"
            " made, and their repositories that `trtk repo` made.",
            hint="Give the folder with its manifest.json, or --backend embedded.",
        )
    found = _served(spec)
    if not found.is_for_cpu and not (found.folder / "start.py").is_file():
        raise UsageError(f"{spec.folder} has no start.py: an older trtk built it.", hint="Build it again.")
    if found.is_for_cpu and not spec.container.image:
        raise UsageError(
            f"{spec.folder} holds an engine for the CPU, and no image for it was named.",
            hint="docker build -f docker/cpu/Dockerfile --target server -t trtk-cpu . makes one; then --image trtk-cpu",
        )
    return found


def _served(spec: ServeSpec) -> Artefact:
    return targets.artefact(Path(spec.folder), repository=Path(spec.repository))


def _is_apart(spec: ServeSpec, found: Artefact) -> bool:
    """Whether the repository is another than the built folder's own."""
    return Path(spec.repository).absolute() != found.folder / targets.REPOSITORY


def _apart(spec: ServeSpec, found: Artefact) -> tuple[Mount, ...]:
    """Return the mounts of a repository of its own: it names its engine by where that is here, or by its --mount.

    Only what is served is mounted, wherever the record says that it is seen: whoever wrote it may be somebody else.
    """
    if not _is_apart(spec, found):
        return ()
    repository = Path(spec.repository).absolute()
    about = targets.about_of(repository)
    served = (repository, found.folder, *_draft(repository, about))
    seen = {str(folder): str(folder) for folder in served}
    for here, there in _told(repository, about):
        for folder in served:
            if folder.is_relative_to(here):
                seen[str(there / folder.relative_to(here))] = str(folder)
    return tuple(Mount(source=here, target=there) for there, here in seen.items())


def _draft(repository: Path, about: Mapping[str, Any]) -> tuple[Path, ...]:
    if not about.get("draft"):
        return ()
    folder = Path(str(about["draft"])).absolute()
    if not targets.is_built(folder):
        raise UsageError(
            f"{repository / targets.RECORD} names {folder} as the draft model, which `trtk build` did not make.",
            hint="Write the repository again with `trtk repo`.",
        )
    return (folder,)


def _told(repository: Path, about: Mapping[str, Any]) -> list[tuple[Path, Path]]:
    try:
        return [(Path(here), Path(there)) for here, there in about.get("mounts", ())]
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{repository / targets.RECORD} says {about['mounts']!r} of its container's mounts: no pairs of folders.",
            hint="Write the repository again with `trtk repo`.",
        ) from error


def compiled_dir(found: Artefact) -> Path:
    """Return the folder of this machine that keeps what a bundle's first start compiles."""
    return (workspace.cache_dir() / "compiled" / (found.build_id or found.folder.name)).absolute()


def user() -> str:
    """Return the user of the container: this one, but never root."""
    return f"{os.getuid()}:{os.getgid()}" if os.getuid() else USER


def _mounts(found: Artefact) -> tuple[Mount, ...]:
    if found.is_for_cpu:
        return (Mount(source=str(found.folder), target=ENGINE),)
    bundle = Mount(source=str(found.folder), target=BUNDLE)
    if found.kind != "trtllm":
        return (bundle,)
    # An engine that came with the bundle is taken from there; for another GPU one is compiled, once.
    return (bundle, Mount(source=str(compiled_dir(found)), target=ENGINES, is_read_only=False))


def _published(spec: ServeSpec) -> tuple[Published, ...]:
    if spec.container.network == "host":
        return ()
    others = {spec.grpc_port: GRPC, spec.metrics_port: METRICS}
    doors = ((*ports.triton_http(spec), HTTP), *((spec.host, ours, its) for ours, its in others.items()))
    return tuple(Published(address=host, port=ours, container_port=its) for host, ours, its in doors)


def _listening(spec: ServeSpec) -> Mapping[str, int | str]:
    """Return address and ports inside: on the host's network those that were asked for, else the usual ones."""
    if spec.container.network == "host":
        http_host, http = ports.triton_http(spec)
        hosts: dict[str, int | str] = {"host": spec.host, "http_host": http_host}
        return {**hosts, "http": http, "grpc": spec.grpc_port, "metrics": spec.metrics_port}
    return {"host": "0.0.0.0", "http_host": "0.0.0.0", "http": HTTP, "grpc": GRPC, "metrics": METRICS}


def _command(spec: ServeSpec, identity: Identity | None, found: Artefact) -> tuple[str, ...]:
    repository = str(Path(spec.repository).absolute()) if _is_apart(spec, found) else ""
    made = _cpu_command if found.is_for_cpu else _gpu_command
    return made(spec, identity, repository=repository)


def _cpu_command(spec: ServeSpec, identity: Identity | None, *, repository: str) -> tuple[str, ...]:
    inside = _listening(spec)
    return (
        *("serve", repository or ENGINE, "--backend", "embedded"),
        *(("--server-id", identity.server_id) if identity else ()),
        *("--host", str(inside["host"]), "--allow-remote"),
        *("--http-port", str(inside["http"]), "--grpc-port", str(inside["grpc"])),
        *("--metrics-port", str(inside["metrics"])),
        *("--timeout", f"{spec.startup_timeout_s:g}", "--exit-timeout", f"{spec.exit_timeout_s:g}"),
        # Whoever watches the container starts it again, and has compared the files.
        *("--restart", "no", "--probe-every", "0", "--print-log", "--no-verify"),
    )


def _gpu_command(spec: ServeSpec, identity: Identity | None, *, repository: str) -> tuple[str, ...]:
    inside = _listening(spec)
    addresses = {"http": inside["http_host"], "grpc": inside["host"], "metrics": inside["host"]}
    return (
        *("python3", f"{BUNDLE}/start.py"),
        *(() if spec.is_verified else ("--no-verify",)),
        *(("--repository", repository) if repository else ()),
        "--",
        f"--id={triton_id(identity.server_id) if identity else workspace.slug(spec.name)}",
        f"--exit-timeout-secs={max(1, round(spec.exit_timeout_s))}",
        *(f"--{door}-address={address}" for door, address in addresses.items()),
        *(f"--{door}-port={inside[door]}" for door in addresses),
    )
