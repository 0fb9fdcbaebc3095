"""The published rows as a system that is linear in the logarithms of the constants' factors, and its solution.

A predicted step is a sum of parts, each in proportion to few constants. So the parts of every row are needed once, at
the constants of data/priors.toml; the fit looks for factors of those by Gauss-Newton steps. Each factor is drawn to 1,
to what was known before, as STRENGTH and WIDTHS say; rows that fit badly count less, so that a typo in a table moves
no constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from planner_rows import Row

from toolkit.plan import speed
from toolkit.plan.speed.flow import Line, mean_work
from toolkit.plan.speed.rates import FP16, PYTORCH, Rates, architecture_of, link_of, precision_of
from toolkit.plan.speed.steps import Step, parts_of
from toolkit.specs import SpeedConstants

#: A finite run ends with a batch that empties: the share of one batch's time that is lost so.
TAIL = 0.1
#: Residuals beyond it count with their size only, not its square.
ROBUST = 0.07
STRENGTH = 0.2
#: How far a factor may lie from 1 for the same price, in logarithms; 1 where nothing is said.
WIDTHS = {
    "compute": 0.3,
    "bandwidth": 0.08,
    "kv": 0.08,
    "attention": 0.4,
    "mixture": 0.3,
    "single_query": 0.3,
    "wire": 0.4,
    "torch_compute": 0.1,
    "torch_host": 0.5,
    "expert_passes": 1.0,
    "nuisance": 2.0,
}
#: What only the oldest tables have, kept out of the constants: the sampler of 0.10, more ranks before 0.17, and the
#: benchmark's client on Grace, which the page of 0.17 tells its readers to replace. Microseconds for each sequence.
SLOW_SAMPLER, SLOW_RANKS, SLOW_CLIENT = 40.0, 1.0, 10.0
FACTORS = 4


@dataclass(frozen=True)
class System:
    """The rows as numbers: parts [row, part], and which factors each part is in proportion to."""

    names: tuple[str, ...]  # of the factors
    parts: np.ndarray
    factors: np.ndarray  # [row, part, FACTORS] indices into names; the last index: none
    tails: np.ndarray
    batches: np.ndarray
    measured: np.ndarray
    is_old: np.ndarray

    def predicted(self, logs: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray:
        """Return output tokens per second; parts that hang on a nuisance never SEEN are left out."""
        return self.batches / self._parts(logs, seen).sum(axis=1) / self.tails

    def fit(self, rows: np.ndarray, strength: float = STRENGTH) -> tuple[np.ndarray, np.ndarray]:
        """Return the logarithms of the factors, and their covariance, from the rows of a mask."""
        logs = np.zeros(len(self.names))
        pull = np.array([strength / WIDTHS.get(name.split(":")[0], 1.0) for name in self.names])
        if self.is_old[rows].all() and "old" in self.names:  # nothing to compare it with: new releases are as old ones
            pull[self.names.index("old")] = 1e6
        for _ in range(12):
            residual = np.log(self.predicted(logs)[rows] / self.measured[rows])
            weight = 1.0 / np.sqrt(1.0 + (residual / ROBUST) ** 2)
            slope = self._slopes(logs)[rows]
            normal = slope.T @ (weight[:, None] * slope) + np.diag(pull**2)
            step = np.linalg.solve(normal, slope.T @ (weight * residual) + pull**2 * logs)
            logs = logs - np.clip(step, -0.7, 0.7)
        spread = 1.4826 * np.median(np.abs(residual))
        return logs, np.linalg.inv(normal) * spread**2

    def seen(self, rows: np.ndarray) -> np.ndarray:
        """Return which factors any of the rows hangs on."""
        found = np.zeros(len(self.names) + 1, bool)
        used = self.factors[rows][self.parts[rows] > 0]
        found[used.ravel()] = True
        return found

    def _parts(self, logs: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray:
        padded = np.append(logs, 0.0)
        found = self.parts * np.exp(padded[self.factors].sum(axis=2))
        if seen is not None:
            nuisances = np.array([name.startswith("nuisance") for name in self.names] + [False])
            found[(nuisances & ~seen)[self.factors].any(axis=2)] = 0.0
        return found

    def _slopes(self, logs: np.ndarray) -> np.ndarray:
        parts = self._parts(logs)
        shares = parts / parts.sum(axis=1, keepdims=True)
        found = np.zeros((len(parts), len(self.names) + 1))
        rows = np.repeat(np.arange(len(parts)), parts.shape[1])
        for slot in range(FACTORS):
            np.add.at(found, (rows, self.factors[:, :, slot].ravel()), -shares.ravel())
        return found[:, :-1]


def system_of(rows: Sequence[Row], constants: SpeedConstants) -> System:
    """Return the rows' parts, with the constants as they are."""
    estimates = [speed.estimate(row.setup, row.workload, constants=constants) for row in rows]
    parts = [list(_parts(estimate, row, constants)) for row, estimate in zip(rows, estimates, strict=True)]
    names = sorted({key for found in parts for keys, _ in found for key in keys})
    index = {name: place for place, name in enumerate(names)}
    width = max(len(found) for found in parts)
    values, factors = np.zeros((len(rows), width)), np.full((len(rows), width, FACTORS), len(names))
    for row, found in enumerate(parts):
        for place, (keys, seconds) in enumerate(found):
            values[row, place] = seconds
            factors[row, place, : len(keys)] = [index[key] for key in keys]
    batches = np.array([estimate.flow.in_flight for estimate in estimates])
    tails = 1.0 + TAIL * np.minimum(1.0, batches / np.array([row.requests for row in rows]))
    measured = np.array([row.output_tps for row in rows])
    return System(
        tuple(names), values, factors, tails, batches, measured, np.array([_is_old(row.release) for row in rows])
    )


def _parts(estimate: speed.Estimate, row: Row, constants: SpeedConstants) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield the seconds that hang on each rate alone: the step is linear in every one of them."""
    line, setup = estimate.line, row.setup
    arch = architecture_of(setup.gpu, constants).name
    compute = f"compute:{arch}:{precision_of(setup.recipe, setup.gpu)}"
    torch = ("torch_compute", "torch_host") if setup.engine == PYTORCH else ()
    keys = {
        "weight_byte": (f"bandwidth:{arch}",),
        "kv_byte": (f"kv:{arch}",),
        "kv_element": ("single_query",),
        "flop": (compute, *torch[:1]),
        "expert_flop": (compute, "mixture", *torch[:1]),
        "head_flop": (f"compute:{arch}:{FP16}",),
        "attention_flop": (f"attention:{arch}",),
        "token": ("passes",),
        "expert_token": ("expert_passes",),
        "message": ("start",),
        "wire_token": (f"wire:{link_of(setup.gpu, constants).name.rstrip('345')}",),
        "step": ("step", *torch[1:]),
        "launch": ("launch", *torch[1:]),
        "sequence": ("sequence",),
        "vocabulary": ("sampling",),
    }
    nothing = Rates(**dict.fromkeys(keys, 0.0))
    work = mean_work(line, estimate.flow.in_flight)
    old = ("old",) if _is_old(row.release) else ()
    keys.pop(_hidden(line, work))
    for name, factors in keys.items():
        alone = dataclasses.replace(nothing, **{name: getattr(line.rates, name)})
        seconds = sum(parts_of(line.shape, alone, work).values())
        if seconds:
            yield (*factors, *old), seconds
    for name, microseconds in _nuisances(row).items():
        yield (f"nuisance:{name}",), microseconds * 1e-6 * estimate.flow.in_flight


def _hidden(line: Line, work: Step) -> str:
    """Return which of the two ways to read keys is the faster, and so takes no time."""
    elements = line.shape.kv_elements * work.context * line.rates.kv_element
    return "kv_byte" if elements > line.shape.read_bytes(work.context) * line.rates.kv_byte else "kv_element"


def _nuisances(row: Row) -> dict[str, float]:
    found = {}
    if row.release.startswith("0.10"):
        found["sampler"] = SLOW_SAMPLER * row.setup.model.vocab_size / 128256
    if _is_old(row.release) and row.tp > 1:
        found["ranks"] = SLOW_RANKS * (row.tp - 1)
    if row.card == "GH200-120GB":
        found["client"] = SLOW_CLIENT
    return found


def _is_old(release: str) -> bool:
    return tuple(int(part) for part in release.split(".")[:2]) < (0, 17)
