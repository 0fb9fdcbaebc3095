"""Triton in a container: NVIDIA's image for GPU engines, an image of docker/cpu for CPU engines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from toolkit import containers, processes
from toolkit.errors import MissingError
from toolkit.files import disk_errors_named
from toolkit.serve import containment, listening
from toolkit.serve.backend import MARKER, Backend, Identity, Inside, Launch
from toolkit.serve.container_runner import SPEC
from toolkit.specs import Progress, ServeSpec, to_json


def check(spec: ServeSpec) -> None:
    """Refuse what no container can serve, and, unless asked in so many words, to be reached from other machines."""
    containment.need_servable(spec)
    listening.need_loopback(spec, why="a container publishes its ports on loopback only")


def prepare(spec: ServeSpec, progress: Progress) -> ServeSpec:
    """Get the image, remove containers that nobody owns, and say what exactly will run."""
    found = containment.need_servable(spec)
    with contextlib.closing(containers.connect()) as daemon:
        containers.remove_orphans(daemon)
        image = containers.need_image(daemon, spec.container.image or found.image, progress=progress)
        memory_bytes = spec.container.memory_bytes or int(daemon.memory_bytes * containment.MEMORY_SHARE)
        is_rootless = daemon.is_rootless
    if found.kind == "trtllm":
        _make_compiled_dir(spec)
    made = dataclasses.replace(
        spec.container,
        image=spec.container.image or found.image,
        image_id=image.image_id,
        image_digest=image.digest,
        memory_bytes=memory_bytes,
        is_rootless=is_rootless,
    )
    return dataclasses.replace(spec, container=made)


def launch(spec: ServeSpec, identity: Identity) -> Launch:
    """Say the process that runs the container and follows its log; nothing is started."""
    made = containment.container(spec, identity)
    return Launch(
        argv=(sys.executable, "-m", "toolkit.serve.container_runner"),
        environment={MARKER: identity.server_id, SPEC: json.dumps(to_json(made))},
        shown=tuple(containers.docker_run(made)),
    )


def look(server_id: str) -> Inside:
    """Say which container it is, and what is wrong in it."""
    try:
        with _own(server_id) as found:
            for container in found:
                state = container.attrs["State"]
                return Inside(container=container.short_id, problem=_problem(state))
    except MissingError as error:
        return Inside(problem=f"its Docker daemon cannot be asked: {error}".rstrip("."))
    return Inside(problem="its container is not there")


def clear(server_id: str, *, was_killed: bool) -> int:
    """Remove the server's container; one that was asked for by a process that was killed may still appear."""
    with contextlib.closing(containers.connect()) as daemon:
        settle_s = containers.SETTLE_S if was_killed else 0.0
        return containers.remove_of(daemon, containment.job(server_id), settle_s=settle_s)


def _problem(state: dict[str, Any]) -> str:
    if not state["Running"]:
        ended = containers.Ended(exit_code=state["ExitCode"], is_oom_killed=state["OOMKilled"])
        return "its container is being started" if state["Status"] == "created" else f"its container ended {ended.how}"
    servers = processes.descendants(int(state["Pid"]), "tritonserver")
    if dead := [pid for server in servers for pid in processes.dead_children(server)]:
        return f"a model's Python process died in its container (pid {', '.join(map(str, dead))})"
    return ""


@contextlib.contextmanager
def _own(server_id: str) -> Iterator[list[Any]]:
    with contextlib.closing(containers.connect()) as daemon:
        yield containers.of_job(daemon, containment.job(server_id))


def _make_compiled_dir(spec: ServeSpec) -> None:
    folder = containment.compiled_dir(containment.need_servable(spec))
    with disk_errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:  # the container's user is not root
            uid, _, gid = containment.USER.partition(":")
            os.chown(folder, int(uid), int(gid))


BACKEND = Backend(
    name="docker",
    title="Triton in a container",
    prepare=prepare,
    launch=launch,
    check=check,
    look=look,
    clear=clear,
    exit_margin_s=6.0,
)
