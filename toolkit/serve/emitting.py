"""A server for others to keep: the same container as a compose file, the same command as a systemd unit."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import containers, templating, workspace
from toolkit.errors import MissingError, UsageError
from toolkit.serve import backend as backends
from toolkit.serve import containment, listening
from toolkit.specs import ServeSpec

COMPOSE, SYSTEMD, SYSTEMD_USER = "compose", "systemd", "systemd-user"
KINDS = (COMPOSE, SYSTEMD, SYSTEMD_USER)
HEADER = """\
# Made by `trtk serve --emit compose`: {name}, hardened as `trtk serve --backend docker` runs it.
#   docker compose -f FILE up -d; docker compose -f FILE logs -f
{pinned}"""
NOT_PINNED = "# Its image is named by a tag, which moves: no daemon here has it, to say its digest.\n"
#: What the images of docker/gpu ask; the CPU image brings a check of its own.
READY = "from urllib.request import urlopen; urlopen('http://127.0.0.1:{port}/v2/health/ready', timeout=4)"


def file_name(spec: ServeSpec, kind: str) -> str:
    """Return what a file of this kind is usually called."""
    return "compose.yaml" if kind == COMPOSE else f"trtk-{workspace.slug(spec.name)}.service"


def compose(spec: ServeSpec) -> str:
    """Return a compose file of one service."""
    import yaml

    if spec.backend != "docker":
        raise UsageError("A compose file runs containers.", hint="Add --backend docker, and --image for a CPU engine.")
    if spec.companions:
        beside = ", ".join(one.name for one in spec.companions)
        raise UsageError(
            f"A compose file has Triton alone; {beside} is a process of trtk beside it.",
            hint="Leave its options out, or let systemd run all of it: --emit systemd.",
        )
    backends.pick(spec.backend).check(spec)
    made = containment.container(spec, None)
    digest = containers.known_digest(made.image)
    service = containers.compose_service(made) | {"image": digest or made.image}
    if not spec.container.memory_bytes:
        service |= dict.fromkeys(("mem_limit", "memswap_limit"), int(_memory_bytes() * containment.MEMORY_SHARE))
    service |= {
        "restart": f"on-failure:{spec.max_restarts}" if spec.max_restarts else "no",
        "stop_grace_period": f"{_stop_s(spec)}s",
        "healthcheck": _healthcheck(spec),
    }
    document: dict[str, Any] = {"name": workspace.slug(spec.name).replace(".", "-"), "services": {"triton": service}}
    if spec.container.network not in {"bridge", "host"}:
        service["networks"] = [spec.container.network]
        document["networks"] = {spec.container.network: {"external": True}}
    header = HEADER.format(name=spec.name, pinned="" if digest else NOT_PINNED)
    return header + str(yaml.safe_dump(document, sort_keys=False, width=120))


def systemd(spec: ServeSpec, command: Sequence[str], *, is_user: bool) -> str:
    """Return a unit that runs a `trtk serve` in the foreground."""
    backends.pick(spec.backend).check(spec)
    kind = SYSTEMD_USER if is_user else SYSTEMD
    is_local = listening.is_loopback(spec.host) and spec.backend != "docker"
    return templating.render(
        "serving/trtk.service.j2",
        {
            "flavour": kind,
            "name": spec.name,
            "file": file_name(spec, kind),
            "description": f"Triton on {spec.name}, started by trtk".replace("%", "%%"),
            "is_user": is_user,
            "is_docker": spec.backend == "docker",
            "is_loopback": is_local,
            "user": _user_name() if os.getuid() else "",
            "command": " ".join(_word(one) for one in command),
            "working_dir": _escaped(str(Path.cwd())),
            "restart": "on-failure" if spec.max_restarts else "no",
            "starts": spec.max_restarts + 1,
            "stop_s": _stop_s(spec),
            "memory_bytes": 0 if spec.backend == "docker" else spec.container.memory_bytes,
            "cpus": 0 if spec.backend == "docker" else spec.container.cpus,
            "cpu_percent": math.ceil(spec.container.cpus * 100),
        },
    )


def _healthcheck(spec: ServeSpec) -> dict[str, Any]:
    timing = {"interval": "15s", "timeout": "5s", "retries": 3, "start_period": f"{math.ceil(spec.startup_timeout_s)}s"}
    if spec.kind == "openvino":
        return {"test": ["CMD", "trtk", "status", "--check"], **timing}
    port = spec.http_port if spec.container.network == "host" else containment.HTTP
    return {"test": ["CMD", "python3", "-c", READY.format(port=port)], **timing}


def _stop_s(spec: ServeSpec) -> int:
    """Return how long an orderly end may take: companions, requests, and what has to be killed."""
    return math.ceil(1.5 * spec.exit_timeout_s + backends.pick(spec.backend).exit_margin_s + 5)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _user_name() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise MissingError("This user has no name.", hint="Set LOGNAME.") from error


def _word(word: str) -> str:
    """Quote a word of ExecStart: systemd knows double quotes, backslashes, and $ and % of its own."""
    if any(ord(letter) < 32 for letter in word):
        raise UsageError(f"{word!r} has a line break, which no unit can hold.", hint="Rename it.")
    escaped = _escaped(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"' if not escaped or set(escaped) & set(" \"'\\;") else escaped


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
