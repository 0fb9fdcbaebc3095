"""Ports: free or not, held by whom, and which one to take instead."""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
from shlex import quote
from typing import Any

from toolkit import processes
from toolkit.errors import MissingError, UsageError
from toolkit.serve import listening, records
from toolkit.serve.records import Record
from toolkit.specs import ServeSpec

LOOPBACK = "127.0.0.1"
FIRST_INNER_PORT = 20000


def options(spec: ServeSpec) -> dict[str, int]:
    """Return the ports of a server by the option that sets them."""
    own = {"--http-port": spec.http_port, "--grpc-port": spec.grpc_port, "--metrics-port": spec.metrics_port}
    own |= {"--triton-http-port": spec.triton_http_port} if spec.triton_http_port else {}
    return own | {option: port for companion in spec.companions for option, port in companion.ports.items()}


def check(spec: ServeSpec) -> None:
    """Raise unless all ports are valid, different and free."""
    asked = options(spec)
    for option, port in asked.items():
        if not 1 <= port <= 65535:
            raise UsageError(f"{option} {port} is not a port.", hint="Give a number from 1 to 65535.")
    if len(set(asked.values())) < len(asked):
        listing = ", ".join(f"{option} {port}" for option, port in asked.items())
        raise UsageError(f"The ports must differ: {listing}.", hint="Give each option its own port.")
    for option, port in asked.items():
        problem = _bind_error(LOOPBACK if port == spec.triton_http_port else spec.host, port)
        if problem == errno.EADDRINUSE:
            raise busy(spec, port)
        if problem == errno.EACCES:
            raise MissingError(f"Port {port} needs more rights than you have.", hint=f"Try {option} {port + 8000}.")
        if problem:
            raise MissingError(f"Port {port} of {spec.host} cannot be used: {os.strerror(problem)}.")


def busy(spec: ServeSpec, port: int) -> MissingError:
    """Return the error that names a busy port, its holder and a free port."""
    pid = processes.port_holder(port)
    ours = next((record.endpoint.name for record in records.read_all() if pid in _pids(record)), None)
    option = next((option for option, asked in options(spec).items() if asked == port), "--http-port")
    free = f"{option} {_free_above(spec, port)}"
    if ours:
        return MissingError(
            f"Port {port} is taken by the server {ours!r} (pid {pid}).",
            hint=f"Try {free}, or `trtk stop {quote(ours)}`.",
        )
    holder = f"by pid {pid} ({processes.command(pid)})" if pid else "by a process of another user"
    return MissingError(f"Port {port} is taken {holder}.", hint=f"Try {free}.")


def _pids(record: Record) -> set[int]:
    """Return who listens for a server: Triton, and its companions."""
    return {record.endpoint.pid, *(one.pid for one in record.companions)}


def free_from(spec: ServeSpec) -> ServeSpec:
    """Return the spec with each busy port replaced by the next free one above it."""
    chosen: dict[str, Any] = {}
    for name in ("http_port", "grpc_port", "metrics_port"):
        port: int = getattr(spec, name)
        if _bind_error(spec.host, port):
            chosen[name] = _free_above(dataclasses.replace(spec, **chosen), port)
    return dataclasses.replace(spec, **chosen)


def with_own_http(spec: ServeSpec, *, port: int | None = None) -> ServeSpec:
    """Return the spec with a port for Triton's own HTTP, behind what answers at `http_port`; else a free one."""
    if port is not None:
        return dataclasses.replace(spec, triton_http_port=port)
    # Below the ports that the kernel gives to clients; another one for each server that starts at the same time.
    candidates = [*range(FIRST_INNER_PORT + spec.http_port % 10000, FIRST_INNER_PORT + 12000)]
    taken = set(options(spec).values())
    free = next(one for one in candidates if one not in taken and not _bind_error(LOOPBACK, one))
    return dataclasses.replace(spec, triton_http_port=free)


def triton_http(spec: ServeSpec) -> tuple[str, int]:
    """Return where Triton's own HTTP listens."""
    return (LOOPBACK, spec.triton_http_port) if spec.triton_http_port else (spec.host, spec.http_port)


def triton_http_url(spec: ServeSpec) -> str:
    """Return where this machine asks Triton's own HTTP."""
    host, port = triton_http(spec)
    return f"http://{listening.in_url(listening.reached_at(host))}:{port}"


def _free_above(spec: ServeSpec, port: int) -> int:
    candidates: list[int] = [*range(port + 10, min(port + 500, 65536)), *range(20000, 20100)]
    taken = set(options(spec).values())
    return next(one for one in candidates if one not in taken and not _bind_error(spec.host, one))


def _bind_error(host: str, port: int) -> int:
    """Return the errno of binding the port, 0 when it can be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections in TIME_WAIT are no obstacle to a server; a listener still is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return int(error.errno or errno.EIO)
    return 0
