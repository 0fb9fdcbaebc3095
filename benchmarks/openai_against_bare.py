"""What the OpenAI endpoint costs: the gateway's streams, Triton's own over gRPC, and the bare pipeline, same requests.

    python benchmarks/openai_against_bare.py engines/demo-int4 --rounds 5

The three take turns in each round, so that a noisy machine hits all of them. The two served sides include their
client, on the same cores. Besides tokens per second: the median time to the first token of requests that come one at
a time, through Triton and through the gateway before it, beyond that of the bare pipeline.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from triton_against_bare import Bare, parsed, through_triton

from toolkit import bench, files, serve, specs
from toolkit.bench import prompts as wording
from toolkit.gateway.config import GatewayConfig
from toolkit.specs import Companion, LoadProfile, ServeSpec

MODEL, FRONT = "demo", "ensemble"
#: Requests one after another whose median time to the first token counts, and how often for each round of throughput:
#: these medians vary by more than what is looked for.
FEW = 24
FIRST_TOKEN_ROUNDS = 4


def main() -> None:
    """Print a line per round and the medians."""
    options = parsed()
    engine = options.engine.resolve()

    def texts(number: int, count: int) -> tuple[str, ...]:
        """Return a round's prompts: new ones each time, or prefix caching would skip the prefill."""
        return tuple(wording.made(seed=number, index=i, tokens=options.isl) for i in range(count))

    bare = Bare(engine, options.concurrency, options.osl)
    bare.run(texts(0, options.concurrency))
    with tempfile.TemporaryDirectory() as folder:
        spec, gateway = served(engine, Path(folder) / "gateway.json")
        endpoint = serve.start(spec)
        triton = LoadProfile(url=f"grpc://{endpoint.grpc_url}", concurrency=options.concurrency, osl=options.osl)
        sides = {
            "triton": triton,
            "openai": dataclasses.replace(triton, url=f"openai+{gateway.url}", model=MODEL, endpoint="completions"),
        }
        try:
            for profile in sides.values():
                rate(profile, texts(1, options.concurrency))
            ratios, rates = [], []
            for number in range(options.rounds):
                measured = {}
                for i, name in enumerate(turned([*sides, "bare"], number)):
                    asked = texts(10 + 3 * number + i, options.requests)
                    measured[name] = bare.run(asked) if name == "bare" else rate(sides[name], asked)
                rates.append(measured)
                ratios.append({name: measured[name] / measured["bare"] for name in sides})
                print(json.dumps({"round": number + 1, **rounded(measured), "of bare": rounded(ratios[-1])}))
            ttft_ms: dict[str, list[float]] = {name: [] for name in ("bare", *sides)}
            for number in range(FIRST_TOKEN_ROUNDS * options.rounds):
                for i, name in enumerate(turned([*sides, "bare"], number)):
                    asked = texts(900 + 3 * number + i, FEW)
                    waited = bare.first_token_ms(asked) if name == "bare" else first_token_ms(sides[name], asked)
                    ttft_ms[name].append(waited)
        finally:
            serve.stop(endpoint.name)
    for name in sides:
        of_bare = sorted(one[name] for one in ratios)
        print(
            f"{name}: median {statistics.median(of_bare):.3f} of bare (from {of_bare[0]:.3f} to {of_bare[-1]:.3f}), "
            f"{statistics.median(one[name] for one in rates):.1f} tok/s; "
            f"adds {added(ttft_ms, name)} to the first token (p50 of requests one after another)"
        )
    print(
        f"bare: {statistics.median(one['bare'] for one in rates):.1f} tok/s, "
        f"first token p50 {statistics.median(ttft_ms['bare']):.1f} ms"
    )


def served(engine: Path, config_file: Path) -> tuple[ServeSpec, Companion]:
    """Return a server with a gateway; the gateway's configuration is written."""
    spec = serve.free_from(ServeSpec(name="benchmark", repository=str(engine / "model_repository"), backend="embedded"))
    port = max(spec.http_port, spec.grpc_port, spec.metrics_port) + 11
    config = GatewayConfig(
        host="127.0.0.1",
        port=port,
        triton_grpc=f"127.0.0.1:{spec.grpc_port}",
        triton_http=f"http://127.0.0.1:{spec.http_port}",
        models={MODEL: FRONT},
        created=int(time.time()),
    )
    files.write_json(config_file, specs.to_json(config))
    url = f"http://127.0.0.1:{port}"
    gateway = Companion(
        name="openai",
        argv=(sys.executable, "-m", "toolkit.gateway", str(config_file)),
        ready_url=f"{url}/health/ready",
        url=f"{url}/v1",
        ports={"--openai-port": port},
    )
    return dataclasses.replace(spec, companions=(gateway,)), gateway


def rate(profile: LoadProfile, prompts: tuple[str, ...]) -> float:
    """Return output tokens per second; every request must have given all its tokens."""
    return through_triton(dataclasses.replace(profile, prompts=prompts, requests=len(prompts)))


def first_token_ms(profile: LoadProfile, prompts: tuple[str, ...]) -> float:
    """Return the median time to the first token of requests that come one after another."""
    run = bench.run(dataclasses.replace(profile, prompts=prompts, requests=len(prompts), concurrency=1, osl=4))
    return statistics.median(1000 * (record.first_token_s - record.sent_s) for record in run.records)


def added(ttft_ms: dict[str, list[float]], name: str) -> str:
    """Return what a side adds to the bare pipeline's median time to the first token, with its spread."""
    more = sorted(one - bare for one, bare in zip(ttft_ms[name], ttft_ms["bare"], strict=True))
    return f"{statistics.median(more):.1f} ms (from {more[0]:.1f} to {more[-1]:.1f})"


def turned(names: list[str], number: int) -> list[str]:
    """Return the names, another one first in each round."""
    first = number % len(names)
    return names[first:] + names[:first]


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Return figures that can be read."""
    return {name: round(value, 3) for name, value in values.items()}


if __name__ == "__main__":
    main()
