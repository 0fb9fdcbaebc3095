"""The command line of Triton."""

import os
import re
import secrets
from typing import NoReturn

from first_start import BUNDLE, MISSING, Refused, say

#: Only the holder of a key made at every start may use these: they read or change what is served.
CLOSED_APIS = "model-repository,model-config,shared-memory,trace,logging"


def become(world_size: int, further: list[str], *, instances: int = 1, rank: int | None = None) -> NoReturn:
    """Replace this process by Triton, or by one rank of it."""
    line = command(world_size, further, instances=instances) if rank is None else one_rank(rank, further)
    if instances > 1:
        os.environ["TRTLLM_ORCHESTRATOR"] = "1"  # one server, which starts the ranks of each instance itself
    say("Starting Triton: " + " ".join(hidden(word) for word in line))
    try:
        os.execvp(line[0], line)
    except FileNotFoundError:
        raise Refused(
            f"This image has no {line[0]}.", hint="Run it in the image that bundle.json names.", code=MISSING
        ) from None


def command(world_size: int, further: list[str], *, instances: int = 1) -> list[str]:
    """Return the command line of Triton: one server, or one a rank under MPI."""
    if instances > 1:
        return [*server(), "--model-control-mode=none", *orchestrator(world_size * instances), *front(further)]
    if world_size == 1:
        return [*server(), "--model-control-mode=none", *front(further)]
    line = ["mpirun", *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]
    for rank in range(world_size):
        line += [":"] * bool(rank) + ["-n", "1", *one_rank(rank, further)]
    return line


def one_rank(rank: int, further: list[str]) -> list[str]:
    """Return the command line of one rank's server: the first one answers clients, the others only compute."""
    prefix = f"--backend-config=python,shm-region-prefix-name=prefix{rank}_"
    own = ["--model-control-mode=none", *front(further)] if rank == 0 else worker()
    return [*server(), f"--id=rank{rank}", prefix, *own]


def server() -> list[str]:
    """Return what every rank's server gets."""
    return [
        "tritonserver",
        f"--model-repository={BUNDLE / 'model_repository'}",
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        "--exit-on-error=true",
        "--log-format=ISO8601",
        "--trace-config=level=OFF",
    ]


def front(further: list[str]) -> list[str]:
    """Return what the server gets that clients talk to, with a key that nobody else learns."""
    key = secrets.token_hex(16)
    return [
        "--allow-sagemaker=false",
        "--allow-vertex-ai=false",
        f"--http-restricted-api={CLOSED_APIS}:closed={key}",
        f"--grpc-restricted-protocol={CLOSED_APIS}:closed={key}",
        *further,
    ]


def orchestrator(gpus: int) -> list[str]:
    """Return what keeps the server's own hands off the GPUs of the ranks that it starts."""
    pools = [f"--cuda-memory-pool-byte-size={gpu}:0" for gpu in range(gpus)]
    return ["--pinned-memory-pool-byte-size=0", "--enable-peer-access=false", *pools]


def worker() -> list[str]:
    """Return what the other ranks get: only the first rank answers clients."""
    off = [f"--allow-{door}=false" for door in ("http", "grpc", "metrics")]
    return ["--model-control-mode=explicit", "--load-model=tensorrt_llm", *off]


def hidden(word: str) -> str:
    return re.sub(r":closed=[0-9a-f]+", ":closed=…", word)
