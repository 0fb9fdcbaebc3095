"""10: the server's ports, and the one that NVIDIA's own tensorrt_llm_bls expects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from toolkit.repository.check import Check
from toolkit.repository.seen import Seen

GRPC, GRPC_OPTION = 8001, "--grpc-port"
#: NVIDIA's tensorrt_llm_bls reads configurations through it.
STOCK_URL = f"localhost:{GRPC}"


def run(seen: Seen) -> Iterator[str]:
    """Name ports that are given twice or taken, and one that a model does not find."""
    ports = seen.around.ports
    for port, count in Counter(ports.values()).items():
        if count > 1:
            options = ", ".join(option for option, each in ports.items() if each == port)
            yield f"{options} are all {port}; each needs a port of its own."
    yield from seen.around.busy_ports.values()
    for model in seen.with_role("tensorrt_llm_bls"):
        port = ports.get(GRPC_OPTION, GRPC)
        if STOCK_URL in model.python and port != GRPC:
            yield f"{model.name} asks {STOCK_URL} for configurations, and gRPC is on {port}."


CHECK = Check(number=10, name="ports", title="ports", run=run)
