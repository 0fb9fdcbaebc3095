"""Latencies under a rate, of servers that no constant was fitted to.

TensorRT-LLM 0.14 behind Triton in BF16, 500 requests; loads that the server could not carry are left out.
https://github.com/NVIDIA/TensorRT-LLM/blob/258c7540c03517def55d9a5aadfa9288af474e1b/docs/source/performance/perf-overview.md
"""

from __future__ import annotations

import csv
import statistics

from planner_rows import CARDS, DATA, setup_of, spec

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


def main() -> None:
    """Print a line for each latency."""
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
