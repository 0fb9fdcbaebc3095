"""The command line of Triton."""

import os
import re
import secrets
from pathlib import Path
from typing import NamedTuple, NoReturn

from first_start import MISSING, Refused, say

#: Only the holder of a key made at every start may use these: they read or change what is served.
CLOSED_APIS = "model-repository,model-config,shared-memory,trace,logging"


class Server(NamedTuple):
    """What is served: a repository whose engine has so many ranks, on so many GPUs."""

    repository: Path
    world_size: int
    gpus: int
    is_orchestrated: bool  # one server, which starts the ranks itself: of several instances, or beside a draft model


def become(server: Server, further: list[str], *, rank: int | None = None) -> NoReturn:
    """Replace this process by Triton, or by one rank of it."""
    line = command(server, further) if rank is None else one_rank(server, rank, further)
    if server.is_orchestrated:
        os.environ["TRTLLM_ORCHESTRATOR"] = "1"
    say("Starting Triton: " + " ".join(hidden(word) for word in line))
    try:
        os.execvp(line[0], line)
    except FileNotFoundError:
        raise Refused(
            f"This image has no {line[0]}.", hint="Run it in the image that bundle.json names.", code=MISSING
        ) from None


def command(server: Server, further: list[str]) -> list[str]:
    """Return the command line of Triton: one server, or one a rank under MPI."""
    if server.is_orchestrated:
        return [*common(server), "--model-control-mode=none", *orchestrator(server.gpus), *front(further)]
    if server.world_size == 1:
        return [*common(server), "--model-control-mode=none", *front(further)]
    line = ["mpirun", *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]
    for rank in range(server.world_size):
        line += [":"] * bool(rank) + ["-n", "1", *one_rank(server, rank, further)]
    return line


def one_rank(server: Server, rank: int, further: list[str]) -> list[str]:
    """Return the command line of one rank's server: the first one answers clients, the others only compute."""
    prefix = f"--backend-config=python,shm-region-prefix-name=prefix{rank}_"
    own = ["--model-control-mode=none", *front(further)] if rank == 0 else worker()
    return [*common(server), f"--id=rank{rank}", prefix, *own]


def common(server: Server) -> list[str]:
    """Return what every rank's server gets."""
    return [
        "tritonserver",
        f"--model-repository={server.repository}",
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
