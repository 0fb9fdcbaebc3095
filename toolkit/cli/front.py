"""The process that answers HTTP clients before Triton: when there is one, and how it is started."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.specs import ServeSpec

NAME = "front"


def with_front(spec: ServeSpec, *, triton_http_port: int | None = None) -> ServeSpec:
    """Return the server with what answers at its HTTP port, and a port of Triton's own behind that; else a free one.

    A container of the CPU engine runs `trtk serve` itself, and has one inside.
    """
    from toolkit.serve import ports, targets
    from toolkit.serve.listening import in_url, reached_at
    from toolkit.specs import Companion

    if spec.backend == "docker" and spec.kind in targets.CPU_KINDS:
        need_no_port(triton_http_port)
        return spec
    spec = ports.with_own_http(spec, port=triton_http_port)
    triton_host, triton_port = ports.triton_http(spec)
    front = Companion(
        name=NAME,
        argv=(
            *(sys.executable, "-m", "toolkit.gateway.front"),
            *(spec.host, str(spec.http_port), triton_host, str(triton_port)),
        ),
        ready_url=f"http://{in_url(reached_at(spec.host))}:{spec.http_port}/v2/health/live",
        outlasts_triton=True,
    )
    return dataclasses.replace(spec, companions=(*spec.companions, front))


def need_no_port(triton_http_port: int | None) -> None:
    """Refuse a port of Triton's own where no front of this machine is before it."""
    from toolkit.errors import UsageError

    if triton_http_port is not None:
        raise UsageError(
            f"--triton-http-port {triton_http_port} is for what Triton listens on behind the front, and there is none"
            " here.",
            hint="Leave it out: --http-port is Triton's own.",
        )
