"""What the gateway is told in its CONFIG.json; no secret of a client is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit import specs
from toolkit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Where every request is recorded."""

    path: str
    has_prompts: bool = False
    is_required: bool = True  # False: requests are served although they cannot be recorded


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one gateway takes on before it refuses."""

    body_bytes: int = 4 << 20
    bodies_bytes: int = 256 << 20  # of all requests together, from their first byte to the end of their answer
    running: int = 256  # requests that Triton works on at once
    waiting: int = 256  # requests of each key that wait for one of those places
    waiting_s: float = 30.0
    body_s: float = 30.0  # for a client to send its whole body
    request_s: float = 600.0  # for a whole answer


@dataclass(frozen=True, kw_only=True)
class GatewayConfig:
    """One gateway in front of one Triton."""

    host: str
    port: int
    triton_grpc: str  # 127.0.0.1:8001
    triton_http: str  # http://127.0.0.1:8000
    models: Mapping[str, str]  # the name that clients use -> Triton's model
    created: int  # of the models, seconds since 1970
    digests: Mapping[str, str] = field(default_factory=dict)  # name -> sha256 of its manifest
    limits: Limits = field(default_factory=Limits)
    api_keys: str | None = None  # the file with their hashes; without one everybody is let in
    audit: Audit | None = None
    drain_s: float = 5.0  # for requests to end in, once it is told to stop
    pool: Mapping[str, Any] | None = None  # toolkit.pool's own settings


def read(path: Path) -> GatewayConfig:
    """Read CONFIG.json."""
    try:
        return specs.from_json(GatewayConfig, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} is no configuration of the gateway: {error}.") from error
