"""What the front costs: one server, asked over HTTP through the front and at Triton's own port, in turns.

    trtk serve engines/demo-int4 --detach
    python benchmarks/front_against_direct.py demo-int4 --rounds 5

Of each round: output tokens per second of streams in flight together, the time to the first token of requests one after
another, and the time of a question that costs Triton nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import json
import statistics
import time
from urllib.parse import urlsplit

from triton_against_bare import through_triton

from toolkit import bench, serve
from toolkit.bench import prompts as wording
from toolkit.serve import ports
from toolkit.specs import LoadProfile

QUESTIONS = 2000


def main() -> None:
    """Print a line per round, and the medians with their spread."""
    options = parsed()
    endpoint = next(one.endpoint for one in serve.running() if one.endpoint.name == options.name)
    sides = {"front": endpoint.http_url, "direct": ports.triton_http_url(endpoint.spec)}
    assert len(set(sides.values())) == len(sides), "this server has no front"
    rounds: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(options.rounds + 1):
        for i, side in enumerate(sorted(sides, reverse=bool(number % 2))):
            measured = figures(sides[side], 2 * number + i, options)
            if number:  # the first is the warm-up
                rounds[side].append(measured)
                print(json.dumps({"round": number, "side": side, **measured}), flush=True)
    for name in rounds["front"][0]:
        values = {side: [one[name] for one in rounds[side]] for side in sides}
        ratios = sorted(one / other for one, other in zip(values["front"], values["direct"], strict=True))
        middles = ", ".join(f"{side} {statistics.median(values[side]):.2f}" for side in sides)
        print(f"{name}: {middles}, ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")


def figures(url: str, number: int, options: argparse.Namespace) -> dict[str, float]:
    """Return what one side takes, with prompts that the server has not seen."""

    def texts(seed: int, count: int) -> tuple[str, ...]:
        return tuple(wording.made(seed=seed, index=i, tokens=options.isl) for i in range(count))

    profile = LoadProfile(
        url=url, concurrency=options.concurrency, requests=options.requests, osl=options.osl,
        prompts=texts(2 * number, options.requests),
    )  # fmt: skip
    alone = dataclasses.replace(
        profile, concurrency=1, requests=options.alone, osl=4, prompts=texts(2 * number + 1, options.alone)
    )
    waits = [1000 * (one.first_token_s - one.sent_s) for one in bench.run(alone).records if one.first_token_s]
    return {
        "tokens_per_s": round(through_triton(profile), 2),
        "ttft_p50_ms": round(statistics.median(waits), 3),
        "question_p50_ms": round(question_ms(url), 4),
    }


def question_ms(url: str) -> float:
    """Return the median time of a question that costs nothing, on one connection."""
    asked = urlsplit(url)
    connection = http.client.HTTPConnection(str(asked.hostname), asked.port)
    times = []
    for _ in range(QUESTIONS):
        began = time.perf_counter()
        connection.request("GET", "/v2/health/live")
        connection.getresponse().read()
        times.append(1000 * (time.perf_counter() - began))
    connection.close()
    return statistics.median(times)


def parsed() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a server that `trtk serve --name NAME --detach` started")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--alone", type=int, default=8)
    parser.add_argument("--isl", type=int, default=32)
    parser.add_argument("--osl", type=int, default=48)
    return parser.parse_args()


if __name__ == "__main__":
    main()
