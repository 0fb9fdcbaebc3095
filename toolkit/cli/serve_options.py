"""Options of `trtk serve` that say how Triton runs: where it listens, how it is kept alive, what a container gets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from toolkit.cli.amounts import MEMORY_BYTES, amount

if TYPE_CHECKING:
    from toolkit.serve.targets import Target
    from toolkit.specs import ContainerOptions, ServeSpec

F = TypeVar("F", bound=Callable[..., Any])
RESTART = re.compile(r"no|on-failure(?::(?P<count>\d{1,4}))?")
DEFAULT_RESTARTS = 3


def added(command: F, options: Iterable[Callable[[F], F]]) -> F:
    """Add options so that --help shows them in the order given."""
    for option in reversed(list(options)):
        command = option(command)
    return command


def listening_options(command: F) -> F:
    """Add the options of ports and addresses."""
    return added(
        command,
        (
            click.option("--http-port", default=8000, show_default=True, help="HTTP port."),
            click.option("--grpc-port", default=8001, show_default=True, help="gRPC port."),
            click.option("--metrics-port", default=8002, show_default=True, help="Port of the Prometheus metrics."),
            click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; loopback."),
            click.option("--allow-remote", is_flag=True, help="Let --host be any address: for a container of its own."),
            click.option(
                "--direct-http",
                is_flag=True,
                help="Let Triton answer HTTP itself: with a 500 where it cannot read a request.",
            ),
            click.option(
                "--triton-http-port",
                type=click.IntRange(1, 65535),
                metavar="PORT",
                help="Triton's own HTTP on loopback; a free port.",
            ),
        ),
    )


def lifetime_options(command: F) -> F:
    """Add the options of starting, staying alive and ending."""
    return added(
        command,
        (
            click.option(
                "--timeout", type=float, metavar="S", help="Seconds it may take to become ready; from its size."
            ),
            click.option(
                "--exit-timeout", default=10.0, show_default=True, metavar="S", help="Seconds for requests to end in."
            ),
            click.option(
                "--restart",
                default=f"on-failure:{DEFAULT_RESTARTS}",
                show_default=True,
                metavar="POLICY",
                callback=_restarts,
                help="no, or on-failure[:N]: start it again, at most N times in a row.",
            ),
            click.option(
                "--probe-every",
                default=30.0,
                show_default=True,
                metavar="S",
                help="Ask for one token where nothing else was answered for so long; 0: never.",
            ),
        ),
    )


def container_options(command: F) -> F:
    """Add the options of the docker backend."""
    return added(
        command,
        (
            click.option("--image", metavar="NAME", help="Docker: image by tag or digest; the release's own."),
            click.option(
                "--gpus", metavar="UUID,…", help="Docker: GPUs by UUID; those that fit, with most free memory."
            ),
            click.option(
                "--memory-limit", metavar="SIZE", callback=_bytes, help="Docker: memory it may use, such as 24g."
            ),
            click.option("--cpus", type=float, metavar="N", help="Docker: cores it may use."),
            click.option("--shm-size", metavar="SIZE", callback=_bytes, help="Docker: size of /dev/shm."),
            click.option(
                "--network", default="bridge", show_default=True, metavar="NAME", help="Docker: network; or host."
            ),
        ),
    )


def spec_of(target: Target, options: dict[str, Any]) -> ServeSpec:
    """Return the server that was asked for."""
    from toolkit.serve.allowances import startup_timeout_s
    from toolkit.specs import ServeSpec

    found = target.artefact
    return ServeSpec(
        name=options["name"] or target.name,
        repository=str(target.repository),
        backend=_backend(target, options["backend"]),
        host=options["host"],
        http_port=options["http_port"],
        grpc_port=options["grpc_port"],
        metrics_port=options["metrics_port"],
        startup_timeout_s=options["timeout"] or startup_timeout_s(found),
        exit_timeout_s=options["exit_timeout"],
        is_remote_allowed=options["allow_remote"],
        probe_model=target.probe_model,
        max_restarts=options["restart"],
        probe_every_s=options["probe_every"],
        folder=str(found.folder) if found else "",
        kind=found.kind if found else "",
        is_verified=not options["no_verify"],
        container=_container(target, options),
    )


def _backend(target: Target, asked: str) -> str:
    """Return the backend: a GPU's engine runs in its container, everything else on this machine's CPU."""
    if asked != "auto":
        return asked
    return "docker" if target.artefact and not target.artefact.is_for_cpu else "embedded"


def _container(target: Target, options: dict[str, Any]) -> ContainerOptions:
    from toolkit.cli.serve_gpus import chosen
    from toolkit.specs import ContainerOptions

    if _backend(target, options["backend"]) != "docker":
        _need_no_container(options)
        # systemd holds a process of this machine to these two.
        return ContainerOptions(memory_bytes=options["memory_limit"], cpus=options["cpus"] or 0.0)
    return ContainerOptions(
        image=options["image"] or "",
        network=options["network"],
        gpu_uuids=chosen(target.artefact, options["gpus"]) if target.artefact else (),
        memory_bytes=options["memory_limit"],
        cpus=options["cpus"] or 0.0,
        shm_bytes=options["shm_size"],
    )


def _need_no_container(options: dict[str, Any]) -> None:
    from toolkit.errors import UsageError

    limits = () if (options["emit"] or "").startswith("systemd") else ("memory_limit", "cpus")
    asked = [name for name in ("image", "gpus", "shm_size", *limits) if options[name]]
    if asked:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise UsageError(
            f"{named} is for containers; this server is a process of this machine.",
            hint="Add --backend docker, or let systemd hold it within limits: --emit systemd.",
        )


def _restarts(_context: click.Context, _option: click.Parameter, text: str) -> int:
    from toolkit.errors import UsageError

    found = RESTART.fullmatch(text)
    if not found:
        raise UsageError(f"--restart {text} is no policy.", hint="Give no, on-failure or on-failure:5.")
    return 0 if text == "no" else int(found["count"] or DEFAULT_RESTARTS)


def _bytes(_context: click.Context, option: click.Parameter, text: str | None) -> int:
    return amount(option.opts[0], text, MEMORY_BYTES, example="24g") or 0
