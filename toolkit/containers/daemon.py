"""Finding the daemon: $DOCKER_HOST, else the current Docker context, else the default socket."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolkit.errors import BuildError, MissingError

UNIX = "unix://"
DEFAULT_SOCKET = f"{UNIX}/var/run/docker.sock"
INSTALL_HINT = "https://docs.docker.com/engine/install tells how to install it; DOCKER_HOST names another daemon."
#: A daemon that is there answers at once; a build's own calls wait as long as they must.
TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A daemon that answered."""

    host: str
    version: str
    memory_bytes: int  # of its machine
    is_rootless: bool  # its containers' root is the user who runs it
    client: Any

    def close(self) -> None:
        """Let the connections go."""
        self.client.close()


def connect() -> Daemon:
    """Return the daemon that this user's `docker` would talk to; raises MissingError when none answers."""
    try:
        import docker
        import requests
    except ImportError as error:
        raise MissingError(
            "This needs the Python package docker, which is not installed.", hint="pip install 'trtk[gpu]'"
        ) from error
    host, tls = _endpoint()
    try:
        _need_listener(host)
        client = docker.DockerClient(base_url=host, tls=tls, version="auto", timeout=TIMEOUT_S)
        facts = client.info()
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise MissingError(f"No Docker daemon answers at {host}: {_cause(error)}.", hint=_hint(error)) from error
    return Daemon(
        host=host,
        version=facts["ServerVersion"],
        memory_bytes=facts["MemTotal"],
        is_rootless="name=rootless" in (facts.get("SecurityOptions") or []),
        client=client,
    )


def _need_listener(host: str) -> None:
    """Raise OSError where nobody listens at a socket: the SDK would leave its own half of the connection open."""
    if host.startswith(UNIX):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(TIMEOUT_S)
            probe.connect(host.removeprefix(UNIX))


@contextlib.contextmanager
def daemon_errors_named(daemon: Daemon) -> Iterator[None]:
    """Turn the loss of the daemon, in the midst of work, into a sentence."""
    import docker
    import requests

    try:
        yield
    except requests.exceptions.ConnectionError as error:
        raise BuildError(
            f"The Docker daemon at {daemon.host} went away: {_cause(error)}.", hint="Start it and try again."
        ) from error
    except docker.errors.APIError as error:
        raise BuildError(f"The Docker daemon refused: {explanation(error)}.") from error


def explanation(error: Any) -> str:
    """Return what the daemon itself says about an error."""
    return str(error.explanation or error).strip().rstrip(".")


def _endpoint() -> tuple[str, Any]:
    import docker

    if host := os.environ.get("DOCKER_HOST"):
        from docker.utils import kwargs_from_env

        return host, kwargs_from_env().get("tls", False)
    context = docker.ContextAPI.get_context(os.environ.get("DOCKER_CONTEXT"))
    if context is None:
        raise MissingError(
            f"There is no Docker context {os.environ.get('DOCKER_CONTEXT')!r}.", hint="`docker context ls` lists them."
        )
    host = (context.Host or DEFAULT_SOCKET).replace("http+unix://", "unix://")
    return host, context.TLSConfig or False


def _cause(error: BaseException) -> str:
    """Return the innermost reason: `[Errno 2] No such file or directory` says more than what wraps it."""
    causes: list[BaseException] = [error]
    while isinstance(inner := causes[-1].__cause__ or causes[-1].__context__, BaseException):
        causes.append(inner)
    systems = [cause for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return str(systems[-1].strerror if systems else causes[0]).rstrip(".")


def _hint(error: BaseException) -> str:
    if "Permission denied" in _cause(error):
        return "Add yourself to the group docker, then log in again: sudo usermod -aG docker $USER"
    return f"Start it: sudo systemctl start docker. {INSTALL_HINT}"
