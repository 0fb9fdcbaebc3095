"""Run as `python -m toolkit.gateway CONFIG.json`: beside a Triton that is ready, stopped with it."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from toolkit.errors import TrtkError
from toolkit.gateway import config as configs
from toolkit.gateway.config import GatewayConfig
from toolkit.gateway.leases import Fixed, Leases
from toolkit.gateway.pooled import Pooled


def main() -> None:
    """Serve until SIGTERM."""
    try:
        config = configs.read(Path(sys.argv[1]))
        serve(config)
    except TrtkError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - this is the process's log
        sys.exit(error.exit_code)


def serve(config: GatewayConfig) -> None:
    """Listen, and answer."""
    import uvloop

    uvloop.run(_run(config))


async def _run(config: GatewayConfig) -> None:
    import uvicorn

    from toolkit.gateway import app
    from toolkit.gateway.serving import Gateway
    from toolkit.gateway.triton import Triton

    # A gRPC channel belongs to the loop that it was made in.
    gateway = Gateway(config, leases_of(config), Triton(config.triton_grpc))
    settings = uvicorn.Config(
        app.made(gateway),
        host=config.host,
        port=config.port,
        http="httptools",
        ws="none",
        lifespan="on",
        log_level="error",  # not a line for each stranger who speaks no HTTP
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(config.drain_s)),
    )
    gc.collect()
    gc.freeze()  # what is there now stays: no collection needs to look at it
    await uvicorn.Server(settings).serve()


def leases_of(config: GatewayConfig) -> Leases:
    """Return what lends models: a pool where there is one, else those that are loaded for good."""
    if config.pool is not None:
        return Pooled(config.pool, config.triton_grpc)
    return Fixed(config.models, created=config.created)


if __name__ == "__main__":
    main()
