"""Latencies, of servers that no constant was fitted to: under a rate, and of first tokens with nobody else there.

TensorRT-LLM 0.14 behind Triton in BF16, 500 requests; loads that the server could not carry are left out.
https://github.com/NVIDIA/TensorRT-LLM/blob/258c7540c03517def55d9a5aadfa9288af474e1b/docs/source/performance/perf-overview.md
TensorRT-LLM 0.9's engines alone, batch 1; of these, request_us of data/priors.toml was read.
https://github.com/NVIDIA/TensorRT-LLM/blob/v0.9.0/docs/source/performance/perf-overview.md
"""

from __future__ import annotations

import csv
import statistics

from planner_rows import CARDS, DATA, RECIPES, setup_of, spec

from toolkit import gpus, quant, speeds
from toolkit.plan import speed
from toolkit.specs import Sharding, Workload


def errors() -> tuple[list[float], list[float], int]:
    """Return the relative errors of first token and gap, and how many of both the intervals held."""
    first, gap, covered = [], [], 0
    with (DATA / "online_serving.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            isl, osl = int(row["isl"]), int(row["osl"])
            setup = setup_of(
                spec(row["model"]),
                gpus.get(CARDS[row["gpu"]]),
                quant.get("fp16"),
                release="0.14",
                ranks=Sharding(tp=int(row["tp"])),
                lengths=(isl, osl),
            )
            load = Workload(isl=isl, osl=osl, isl_max=isl, osl_max=osl, rate_rps=float(row["rate_rps"]))
            said = speed.predict(setup, load, constants=speeds.constants())
            for found, kept, name in ((said.ttft_ms, first, "ttft_ms"), (said.tpot_ms, gap, "itl_ms")):
                kept.append(found.mid / float(row[name]) - 1)
                covered += found.low <= float(row[name]) <= found.high
    return first, gap, covered


def first_tokens() -> tuple[list[float], int]:
    """Return the relative errors of first tokens with nobody else there, and how many the intervals held."""
    found, covered = [], 0
    with (DATA / "first_token.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            isl, measured = int(row["isl"]), float(row["ttft_ms"])
            setup = setup_of(
                spec(row["model"]),
                gpus.get(CARDS[row["gpu"]]),
                quant.get(RECIPES[row["precision"]]),
                release="0.17",  # without what sampling took in older ones: there is one sequence
                ranks=Sharding(tp=int(row["tp"])),
                lengths=(isl, 128),
            )
            load = Workload(isl=isl, osl=128, isl_max=isl, osl_max=128, concurrency=1)
            said = speed.predict(setup, load, constants=speeds.constants()).ttft_ms
            found.append(said.mid / measured - 1)
            covered += said.low <= measured <= said.high
    return found, covered


def main() -> None:
    """Print a line for each latency."""
    alone, held = first_tokens()
    sizes = [abs(error) for error in alone]
    print("\nfirst tokens with nobody else there")
    print(f"{len(alone)} of 0.9: median {statistics.median(sizes):.1%}, mean {statistics.mean(sizes):.1%}, ", end="")
    print(f"{held / len(alone):.0%} within their interval")
    first, gap, covered = errors()
    print(f"\nlatencies under a rate, nothing fitted{'':6}  n  median    mean  signed")
    for name, found in (("time to first token", first), ("time per output token", gap)):
        sizes = [abs(error) for error in found]
        print(
            f"{name:42}{len(found):5d} {statistics.median(sizes):7.1%} {statistics.mean(sizes):7.1%} "
            f"{statistics.median(found):+7.1%}"
        )
    print(f"both within their interval: {covered / (len(first) + len(gap)):.0%}")


if __name__ == "__main__":
    main()
