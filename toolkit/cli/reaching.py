"""Which of the servers that trtk started a command means, and at which URL it is asked."""

from __future__ import annotations

import importlib.util
from shlex import quote
from typing import TYPE_CHECKING

from toolkit.errors import MissingError, ServerError, UnknownName, UsageError

if TYPE_CHECKING:
    from toolkit.specs import Endpoint

START_HINT = "Start one with `trtk serve ENGINE --detach`, or give --url."


def ready_server(name: str | None = None, *, choose: str = "--url", start_hint: str = START_HINT) -> Endpoint:
    """Return the server of this name, or the only one that is ready; raises where there is none, or not one."""
    from toolkit import serve

    found = {status.endpoint.name: status for status in serve.running()}
    if name is not None and name not in found:
        if not found:
            raise MissingError(f"No server is running here, and none is named {name!r}.", hint=start_hint)
        raise UnknownName("server", name, found, command="trtk status")
    asked = found.values() if name is None else [found[name]]
    ready = [status.endpoint for status in asked if status.state == "ready"]
    if len(ready) > 1:
        names = ", ".join(f"{endpoint.name} (grpc://{endpoint.grpc_url})" for endpoint in ready)
        raise UsageError(f"{len(ready)} servers are running: {names}.", hint=f"Choose one with {choose}.")
    if ready:
        return ready[0]
    for status in asked:
        why = f": {status.problem}" if status.problem else ""
        one = status.endpoint.name
        raise ServerError(
            f"The server {one!r} is {status.state}{why}.", hint=f"`trtk logs {quote(one)}` shows its log."
        )
    raise MissingError("No server is running here.", hint=start_hint)


def triton_url(endpoint: Endpoint) -> str:
    """Return the address to ask a server at: gRPC where it is installed here."""
    has_grpc = all(importlib.util.find_spec(name) for name in ("grpc", "hpack", "tritonclient"))
    return f"grpc://{endpoint.grpc_url}" if has_grpc else endpoint.http_url


def url_and_metrics(url: str | None, metrics_url: str | None) -> tuple[str, str]:
    """Return what to load-test, and where its metrics are: those of the server that trtk started, where it is that."""
    if url is None:
        endpoint = ready_server()
        return triton_url(endpoint), metrics_url or endpoint.metrics_url
    if metrics_url is None and (behind := endpoint_behind(url)):
        return url, behind.metrics_url
    return url, metrics_url or ""


def endpoint_behind(url: str | None) -> Endpoint | None:
    """Return the server that trtk started at a URL; without one, the only one that is ready."""
    from toolkit import serve

    if url is None:
        return ready_server()
    asked = url.removeprefix("openai+").rstrip("/")
    for status in serve.running():
        endpoint = status.endpoint
        if asked in (f"grpc://{endpoint.grpc_url}", endpoint.http_url, *openai_urls(endpoint)):
            return endpoint
    return None


def url_to_ask(endpoint: Endpoint) -> str:
    """Return where a person's question goes: Triton, but where its models come and go, who brings them."""
    pooled = openai_urls(endpoint) if endpoint.spec.is_pool else ()
    return f"openai+{pooled[0]}" if pooled else triton_url(endpoint)


def gateway_metrics(endpoint: Endpoint) -> tuple[str, ...]:
    """Return where the OpenAI endpoint of a server says its metrics, where there is one."""
    return tuple(f"{url.removesuffix('/v1')}/metrics" for url in openai_urls(endpoint))


def openai_urls(endpoint: Endpoint) -> tuple[str, ...]:
    """Return the OpenAI endpoint of a server, where there is one: http://127.0.0.1:9000/v1."""
    return tuple(one.url for one in endpoint.spec.companions if one.url.endswith("/v1"))
