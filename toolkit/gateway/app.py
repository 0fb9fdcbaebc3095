"""The gateway's routes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolkit.gateway import refusals, text_endpoints
from toolkit.gateway.exchange import Exchange
from toolkit.gateway.forwarding import Forward
from toolkit.gateway.refusals import Kind, Refusal
from toolkit.gateway.serving import Gateway

CONNECT_TIMEOUT_S = 5.0


def made(gateway: Gateway) -> Starlette:
    """Return the ASGI application."""
    # A proxy of the environment must not see what goes to loopback.
    timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
    limits = httpx.Limits(max_connections=None)
    # Triton speaks plain HTTP: certificates need not be read to check none.
    client = httpx.AsyncClient(
        base_url=gateway.config.triton_http, timeout=timeout, limits=limits, trust_env=False, verify=False
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await gateway.close()
            await client.aclose()

    questions = Questions(gateway)
    return Starlette(
        routes=[
            Route("/v1/completions", text_endpoints.completions(gateway), methods=["POST"]),
            Route("/v1/chat/completions", text_endpoints.chats(gateway), methods=["POST"]),
            Route("/v1/models", questions.models),
            Route("/v1/models/{model:path}", questions.model),
            *(
                Route(
                    f"/v2/models/{{model}}/{action}", Forward(gateway, action=action, client=client), methods=["POST"]
                )
                for action in ("generate", "generate_stream")
            ),
            Route("/health/live", questions.live),
            Route("/health/ready", questions.ready),
            Route("/metrics", questions.metrics),
        ],
        exception_handlers={
            Refusal: answered_refusal,
            404: no_such_path,
            405: wrong_method,
            Exception: failed,
        },
        lifespan=lifespan,
    )


class Questions:
    """What is answered without a model."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def _need_key(self, request: Request) -> None:
        self._gateway.key_of(Exchange(request.scope, None, None))

    async def models(self, request: Request) -> Response:
        """List what is served."""
        self._need_key(request)
        return Response(text_endpoints.models_document(self._gateway), media_type="application/json")

    async def model(self, request: Request) -> Response:
        """Describe one model."""
        self._need_key(request)
        name = request.path_params["model"]
        found = next((one for one in self._gateway.leases.served() if one.name == name), None)
        if found is None:
            raise Refusal(refusals.NOT_FOUND, f"The model {name!r} is not served here.", param="model")
        return _json(text_endpoints.model_fields(found.name, found.created))

    async def live(self, _: Request) -> Response:
        """Say that this process answers."""
        return _json({"status": "live"})

    async def ready(self, _: Request) -> Response:
        """Say whether Triton is ready and requests can be recorded."""
        if not await self._gateway.triton.is_ready():
            raise Refusal(refusals.UNAVAILABLE, "The model server is not ready.", retry_after_s=1)
        if self._gateway.audit:
            self._gateway.audit.need_writable()
        return _json({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """Show what is counted."""
        self._need_key(request)
        return Response(self._gateway.metrics.text(), media_type="text/plain; version=0.0.4")


def _json(document: Any) -> Response:
    return Response(json.dumps(document), media_type="application/json")


async def answered_refusal(_: Request, refusal: Exception) -> Response:
    """Answer with a refusal."""
    assert isinstance(refusal, Refusal)
    headers = {name.decode(): value.decode() for name, value in refusal.headers()}
    return Response(refusal.body(), status_code=refusal.kind.status, headers=headers, media_type="application/json")


async def no_such_path(request: Request, _: Exception) -> Response:
    """Answer a path that nothing is at."""
    return _refused(refusals.NO_SUCH_PATH, f"Unknown request URL: {request.method} {request.url.path}.")


async def wrong_method(request: Request, _: Exception) -> Response:
    """Answer a method that a path does not take."""
    return _refused(refusals.WRONG_METHOD, f"Not allowed to {request.method} on {request.url.path}.")


async def failed(_request: Request, _: Exception) -> Response:
    """Answer where this program is wrong; its log has the traceback."""
    return _refused(refusals.FAILED, "The gateway failed on this request; its log says where.")


def _refused(kind: Kind, sentence: str) -> Response:
    return Response(Refusal(kind, sentence).body(), status_code=kind.status, media_type="application/json")
