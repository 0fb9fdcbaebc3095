"""All-reduce as a start and a rate, from measured tables: what the links of data/priors.toml were taken from.

    python benchmarks/planner_links.py

seconds = start + 2 (t - 1) / t x bytes / rate; both by weighing every message's relative error alike. Sizes of
data/all_reduce.csv are in 16-bit elements. The L40S of that file had no peer access and is slower with every card more;
the servers of the published throughput tables were not like it, so PCIe 4 follows PCIe 5, and then the fit.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data" / "all_reduce.csv"
ELEMENT_BYTES = 2


def read() -> dict[tuple[str, int], list[tuple[float, float]]]:
    """Return (bytes, seconds) of NCCL's all-reduce in half precision, by system and ranks."""
    found = defaultdict(list)
    with DATA.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"] == "nccl" and row["dtype"] == "half":
                size = ELEMENT_BYTES * float(row["message_elems_or_bytes"])
                found[row["system"], int(row["num_gpus"])].append((size, float(row["latency_ms"]) / 1e3))
    return found


def fit(points: list[tuple[float, float]], ranks: int) -> tuple[float, float]:
    """Return (start in microseconds, rate in GB/s)."""
    sizes, seconds = np.array(points).T
    wire = 2 * (ranks - 1) / ranks * sizes
    columns = np.array([np.ones_like(wire), wire]).T / seconds[:, None]
    weights = np.ones(len(seconds))
    for _ in range(20):  # the middle sizes change algorithms: what fits badly counts less
        start, per_byte = np.linalg.lstsq(columns * weights[:, None], weights, rcond=None)[0]
        off = np.abs(columns @ [start, per_byte] - 1)
        weights = 1 / np.sqrt(np.maximum(off, 0.02))
    return start * 1e6, 1e-9 / per_byte


def main() -> None:
    """Print a line for each system and number of ranks."""
    print(f"{'system':22}{'ranks':>6}{'start, us':>11}{'GB/s':>8}")
    for (system, ranks), points in sorted(read().items()):
        if ranks > 1:
            start, rate = fit(points, ranks)
            print(f"{system:22}{ranks:6d}{start:11.1f}{rate:8.1f}")


if __name__ == "__main__":
    main()
