"""What the gateway beside Triton reads: where that is, and of keys the place alone."""

from __future__ import annotations

import json

from toolkit.specs import DeploySpec


def text(spec: DeploySpec, *, triton: str, api_keys: str | None) -> str:
    """Return the gateway's configuration; TRITON is the host that it finds Triton at."""
    own = spec.container
    document = {
        "host": "0.0.0.0",
        "port": own.openai_port,
        "triton_grpc": f"{triton}:{own.grpc_port}",
        "triton_http": f"http://{triton}:{own.http_port}",
        "models": {spec.name: spec.model.front_model},
        "created": 0,
        "api_keys": api_keys,
        "drain_s": spec.budgets.drain_s.value,
    }
    return json.dumps(document, indent=2) + "\n"
