"""How wrong the two constants of one card are on a model that they were not fitted to, one request at a time.

A token takes the bytes it reads at the rate of the card, and the launches of its layers: the two terms that the
planner has for a step of one sequence. They are fitted card by card, since these figures are llama.cpp's and not
TensorRT-LLM's, on all models but one; what a card's few rows leave open follows the other cards of its memory type.
"""

from __future__ import annotations

import csv
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"
#: GB/s of the cards as the figures name them.
BANDWIDTH = {
    "3070": 448, "3080 Ti": 912, "3080": 760, "3090": 936, "4070 Ti": 504, "4080": 717, "4090": 1008, "5090": 1792,
    "RTX 4000 Ada": 360, "RTX 5000 Ada": 576, "RTX 6000 Ada": 960, "RTX A6000": 768, "A40": 696, "L40S": 864,
    "A100 PCIe": 1935, "A100 SXM": 2039, "A100-PCIe-40GB": 1555, "A100-SXM-80GB": 2039, "H100 PCIe": 2000,
    "H100-SXM": 3350, "H200-SXM": 4800, "H200 PCIe": 4800, "B300-SXM": 7750, "V100-PCIe": 900, "P100-PCIe": 732,
    "GTX 1080": 320, "DGX Spark": 273,
}  # fmt: skip
HBM = re.compile("A100|H100|H200|B300|V100|P100")
#: Where a card has nothing to say: share of the bandwidth, and microseconds of a plain layer's launches.
START = {"hbm": (0.55, 90.0), "gddr": (0.88, 80.0)}
WIDTHS = np.array([0.15, 0.4])
NOISE = 0.06


@dataclass(frozen=True)
class Point:
    """One measured rate of one sequence."""

    card: str  # with the number of cards
    model: str
    bytes_s: float  # seconds at the datasheet's bandwidth
    launches: float  # layers, weighed by their kernels
    token_s: float
    memory: str


def read() -> list[Point]:
    """Return the decoding rates that are not marked as implausible."""
    models = {}
    with (DATA / "decode_models.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            models[row["model"], row["quant"]] = (float(row["read_gb"]), int(row["layers"]) * float(row["kernels"]))
    with (DATA / "single_stream.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] == "decode" and not _is_doubtful(row["notes"])]
    return [_point(row, *models[row["model"], row["quant"].split(" ")[0]]) for row in rows]


def _is_doubtful(notes: str) -> bool:
    return "implausible" in notes or "outlier" in notes


def _point(row: dict[str, str], read_gb: float, launches: float) -> Point:
    name = row["gpu"]
    bandwidth = BANDWIDTH[max((key for key in BANDWIDTH if key in name), key=len)]
    # Half of the generated tokens lie in the cache on average; 128 KiB each in the Llama-3 models' first, by layers.
    cached_gb = float(row["tokens"] or 0) / 2 * launches * 4096e-9 if "Llama" in row["model"] else 0.0
    return Point(
        card=f"{name} x{row['gpu_count']}",
        model=row["model"],
        bytes_s=(read_gb + cached_gb) / bandwidth,
        launches=launches,
        token_s=1 / float(row["tok_s"]),
        memory="hbm" if HBM.search(name) else "gddr",
    )


def fit(points: Sequence[Point], prior: np.ndarray) -> np.ndarray:
    """Return the logarithms of bandwidth share and launch microseconds: Gauss-Newton steps, drawn to the prior."""
    at = prior.copy()
    counts = {model: sum(point.model == model for point in points) for model in {point.model for point in points}}
    weights = np.array([1 / counts[point.model] for point in points])  # a model's rows are one experience
    for _ in range(20):
        parts = np.array([[p.bytes_s / np.exp(at[0]), p.launches * 1e-6 * np.exp(at[1])] for p in points])
        total = parts.sum(axis=1)
        residual = np.log(total / [p.token_s for p in points])
        slope = parts / total[:, None] * [-1.0, 1.0]
        scaled = weights[:, None] * slope / NOISE**2
        normal = slope.T @ scaled + np.diag(1 / WIDTHS**2)
        at = at - np.linalg.solve(normal, scaled.T @ residual + (at - prior) / WIDTHS**2)
    return at


def prior_of(points: Sequence[Point], memory: str, *, card: str, model: str) -> np.ndarray:
    """Return the median of the other cards of a memory type, the held-out model unseen there as well."""
    start = np.log(START[memory])
    others = [p for p in points if p.memory == memory and p.card != card and p.model != model]
    found = [fit([p for p in others if p.card == name], start) for name in sorted({p.card for p in others})]
    return np.median(found, axis=0) if found else start


def held_out(points: Sequence[Point]) -> list[tuple[Point, float]]:
    """Return every point of cards with two models or more, and what the card's other models say of it."""
    found = []
    for card in sorted({point.card for point in points}):
        own = [point for point in points if point.card == card]
        for model in sorted({point.model for point in own}):
            others = [point for point in own if point.model != model]
            if not others:
                continue
            at = fit(others, prior_of(points, own[0].memory, card=card, model=model))
            for point in own:
                if point.model == model:
                    said = point.bytes_s / np.exp(at[0]) + point.launches * 1e-6 * np.exp(at[1])
                    found.append((point, float(point.token_s / said - 1)))
    return found


def main() -> None:
    """Print the table."""
    points = read()
    held = held_out(points)
    print(f"\none sequence, leave one model of a card out (llama.cpp, decoding){'':6}  n  median    mean")
    for card in [*sorted({point.card for point, _ in held}), None]:
        errors = [abs(error) for point, error in held if card in {None, point.card}]
        name = card or "all"
        print(f"{name:70}{len(errors):4d} {statistics.median(errors):7.1%} {statistics.mean(errors):7.1%}")


if __name__ == "__main__":
    main()
