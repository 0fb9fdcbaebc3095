"""A gateway in front of a stand-in for Triton, both in a thread of this process, and the official client."""

import asyncio
import contextlib
import dataclasses
import importlib.util
import json
import socket
import threading
import time
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("triton_stand_in", Path(__file__).parent / "triton_stand_in.py")
triton_stand_in = importlib.util.module_from_spec(spec)
spec.loader.exec_module(triton_stand_in)


COUNTED = {"num_input_tokens": 7, "num_output_tokens": 0}
STREAMED = b'data: {"text_output": "%b", "num_input_tokens": 7, "num_output_tokens": %d}\n\n'


async def triton_http(scope, receive, send):
    """Answer generate and generate_stream as Triton does, with what was asked."""
    assert scope["type"] == "http"
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = json.loads(body)
    status, kind, pieces = 200, b"application/json", [json.dumps({"path": scope["path"], **asked} | COUNTED).encode()]
    if asked.get("text_input") == "wrong":
        status, pieces = 400, [b'{"error": "max_tokens is 0; it must be 1 or more."}']
    elif asked.get("text_input") == "late":
        status, pieces = 400, [b'{"error": "in ensemble \'ensemble\', Exceeds maximum queue size"}']
    elif asked.get("text_input") == "typed":
        words = "Unable to parse JSON bytes array: attempt to access JSON non-string as string"
        status, pieces = 500, [json.dumps({"error": words}).encode()]
    elif scope["path"].endswith("generate_stream"):
        kind, pieces = b"text/event-stream", [STREAMED % (b"a", 1), STREAMED % (b"b", 2)]
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class Running:
    """A gateway that runs: its URL, its parts, and the Triton behind it."""

    def __init__(self, config, leases=None):
        self.config, self.leases = config, leases
        self.triton = triton_stand_in.StandIn()
        self.url = f"http://127.0.0.1:{config.port}"
        self.loop = asyncio.new_event_loop()
        self.is_up = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.serve())
        self.loop.close()

    async def serve(self):
        import uvicorn

        from toolkit.gateway import app
        from toolkit.gateway.leases import Fixed
        from toolkit.gateway.serving import Gateway
        from toolkit.gateway.triton import Triton

        server, address = await triton_stand_in.served(self.triton)
        behind = uvicorn.Server(self.settings(triton_http, port=0, lifespan="off"))
        task = asyncio.ensure_future(behind.serve())
        while not behind.started:
            await asyncio.sleep(0.01)
        port = behind.servers[0].sockets[0].getsockname()[1]
        config = dataclasses.replace(self.config, triton_grpc=address, triton_http=f"http://127.0.0.1:{port}")
        leases = self.leases or Fixed(config.models, created=config.created)
        self.gateway = Gateway(config, leases, Triton(address))
        self.server = uvicorn.Server(self.settings(app.made(self.gateway), port=config.port, lifespan="on"))
        self.is_up.set()
        await self.server.serve()
        behind.should_exit = True
        await task
        await server.stop(None)

    @staticmethod
    def settings(application, *, port, lifespan):
        import uvicorn

        return uvicorn.Config(
            application,
            host="127.0.0.1",
            port=port,
            http="httptools",
            loop="asyncio",
            ws="none",
            lifespan=lifespan,
            log_level="critical",
            timeout_graceful_shutdown=1,
        )

    def start(self):
        self.thread.start()
        assert self.is_up.wait(20)
        until(lambda: self.server.started)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(20)


def until(condition, timeout_s=20.0):
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def gateways():
    """Return a function that runs a gateway with changes to its configuration, for as long as a block lasts."""
    from toolkit.gateway.config import GatewayConfig

    @contextlib.contextmanager
    def run(*, leases=None, **changes):
        config = GatewayConfig(
            host="127.0.0.1",
            port=free_port(),
            triton_grpc="",
            triton_http="",
            models={"demo": "ensemble", "nvidia": "nvidia", "plain": "plain", "gone": "gone"},
            created=1_700_000_000,
            digests={"demo": "ab" * 32},
            drain_s=1,
            **changes,
        )
        running = Running(config, leases)
        running.start()
        try:
            yield running
        finally:
            running.stop()

    return run


@pytest.fixture(scope="session")
def client_of():
    """Return a function that makes the official client of a gateway."""
    import openai

    def made(running, key="none"):
        return openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0, timeout=30)

    return made


@pytest.fixture(scope="session")
def script():
    """Return a function that makes the prompt of an answer."""

    def made(*pieces, **more):
        return json.dumps({"say": pieces, **more})

    return made


@pytest.fixture(scope="session", name="until")
def _until():
    return until
