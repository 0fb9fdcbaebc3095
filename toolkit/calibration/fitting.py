"""Three constants from a few points: the planner's own prediction is turned until it says what was measured."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.errors import UsageError
from toolkit.plan import speed
from toolkit.plan.speed.rates import shape_key
from toolkit.specs import Calibration, CalibrationPoint, ServerSetup, SpeedConstants, Workload

MIN_POINTS = 2
#: How far a constant may lie from what was known before for the price of an observation off by as much as it scatters.
KNOWN_SD, HOST_SD = 0.5, 5.0
#: How observations scatter around a good fit; a first token's time hangs on how requests happen to meet.
THROUGHPUT_SD, GAP_SD, FIRST_TOKEN_SD = 0.04, 0.04, 0.15
NAMES = ("compute_tflops", "bandwidth_gb_per_s", "step_ms")
STEPS, NUDGE, LARGEST_MOVE = 25, 1e-4, 0.7
#: What is left at a load is kept, unless it says that the run, not the model, went wrong.
LARGEST_BEND = 1.6
LEAST_SD = 0.03

Row = tuple[float, list[float]]  # a weighed residual and its slopes


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What was running when the points were taken."""

    engine: str
    model: str
    date: str
    versions: Mapping[str, str] = field(default_factory=dict)


def fitted(
    setup: ServerSetup,
    points: Sequence[CalibrationPoint],
    *,
    constants: SpeedConstants,
    taken: Circumstances,
) -> Calibration:
    """Return the constants with which the planner predicts POINTS best."""
    if len(points) < MIN_POINTS:
        raise UsageError(
            f"{len(points)} point cannot tell three constants apart.",
            hint="Give reports of different loads: --concurrency 1, 8 and 32, and one with a long prompt.",
        )
    compute_tflops, bandwidth_gb_per_s, step_ms = speed.reached(setup, constants)
    found = Calibration(
        gpu=setup.gpu.name,
        engine=taken.engine,
        recipe=setup.recipe.name,
        quant_algo=setup.recipe.quant_algo or "",
        model=taken.model,
        shape=shape_key(setup.model),
        compute_tflops=compute_tflops,
        bandwidth_gb_per_s=bandwidth_gb_per_s,
        step_ms=step_ms,
        known_tflops=compute_tflops,
        known_step_ms=step_ms,
        log_sd=LEAST_SD,
        points=tuple(points),
        date=taken.date,
        versions=taken.versions,
    )
    prior = _logs(found)
    sd = HOST_SD if setup.gpu.is_cpu else KNOWN_SD
    for _ in range(STEPS):
        rows = _rows(found, setup, constants)
        pulls = [
            ((log - known) / sd, index) for index, (log, known) in enumerate(zip(_logs(found), prior, strict=True))
        ]
        rows += [(pull, [1 / sd if place == index else 0.0 for place in range(len(NAMES))]) for pull, index in pulls]
        move = _solved(rows)
        found = _moved(found, [max(-LARGEST_MOVE, min(LARGEST_MOVE, -step)) for step in move])
        if max(map(abs, move)) < 1e-6:
            break
    found = dataclasses.replace(found, bends=_bends(found, setup, constants))
    found = dataclasses.replace(found, crowds=_crowds(found, setup, constants))
    left = [value for point in points for value in _left(found, setup, constants, point)]
    return dataclasses.replace(found, log_sd=max(LEAST_SD, math.sqrt(statistics.fmean(value**2 for value in left))))


def workload_of(point: CalibrationPoint) -> Workload:
    """Return what was asked of the server."""
    isl, osl = max(1.0, point.isl), max(1.0, point.osl)
    return Workload(isl=isl, osl=osl, isl_max=math.ceil(isl), osl_max=math.ceil(osl), concurrency=point.concurrency)


def _residuals(
    found: Calibration, setup: ServerSetup, constants: SpeedConstants, point: CalibrationPoint
) -> list[tuple[float, float]]:
    """Return (logarithm of predicted / measured, its scatter) of what a point says."""
    said = speed.predict(setup, workload_of(point), constants=constants, calibration=found)
    rows = [(math.log(said.output_tps.mid / point.output_tps), THROUGHPUT_SD)]
    if point.concurrency == 1:  # with more, how a request's time is split hangs on whom it meets
        rows.append((math.log(said.tpot_ms.mid / point.tpot_ms), GAP_SD))
        rows.append((math.log(said.ttft_ms.mid / point.ttft_ms), FIRST_TOKEN_SD))
    return rows


def _left(found: Calibration, setup: ServerSetup, constants: SpeedConstants, point: CalibrationPoint) -> list[float]:
    """Return the logarithms of predicted / measured throughput and gap."""
    said = speed.predict(setup, workload_of(point), constants=constants, calibration=found)
    return [math.log(said.output_tps.mid / point.output_tps), math.log(said.tpot_ms.mid / point.tpot_ms)]


def _rows(found: Calibration, setup: ServerSetup, constants: SpeedConstants) -> list[Row]:
    nudged = [
        _moved(found, [NUDGE if place == index else 0.0 for place in range(len(NAMES))]) for index in range(len(NAMES))
    ]
    rows = []
    for point in found.points:
        here = _residuals(found, setup, constants, point)
        there = [_residuals(other, setup, constants, point) for other in nudged]
        for index, (value, sd) in enumerate(here):
            rows.append((value / sd, [(other[index][0] - value) / NUDGE / sd for other in there]))
    return rows


def _bends(found: Calibration, setup: ServerSetup, constants: SpeedConstants) -> tuple[tuple[float, float], ...]:
    """Return what is left of a step's time at each number of requests in flight, short prompts alone."""
    shortest = min(point.isl for point in found.points)
    left: dict[int, list[float]] = {}
    for point in found.points:
        if point.isl <= 1.5 * shortest:
            rows = _residuals(found, setup, constants, point)
            left.setdefault(point.concurrency, []).append(rows[0][0])
    bends = {load: math.exp(statistics.fmean(values)) for load, values in left.items()}
    return tuple((float(load), min(LARGEST_BEND, max(1 / LARGEST_BEND, bends[load]))) for load in sorted(bends))


def _crowds(found: Calibration, setup: ServerSetup, constants: SpeedConstants) -> tuple[tuple[float, float], ...]:
    """Return how many prompts each load read by the time that one was: what makes first tokens as late as they were."""
    together: dict[int, list[float]] = {}
    for point in found.points:
        if point.concurrency > 1:
            together.setdefault(point.concurrency, []).append(_crowd(found, setup, constants, point))
    return tuple((float(load), statistics.fmean(together[load])) for load in sorted(together))


def _crowd(found: Calibration, setup: ServerSetup, constants: SpeedConstants, point: CalibrationPoint) -> float:
    """Return that number for one load, between itself alone and everybody: more of them only take longer."""
    low, high = 1.0, float(point.concurrency)
    for _ in range(20):
        middle = (low + high) / 2
        tried = dataclasses.replace(found, crowds=((float(point.concurrency), middle),))
        said = speed.predict(setup, workload_of(point), constants=constants, calibration=tried)
        low, high = (middle, high) if said.ttft_ms.mid < point.ttft_ms else (low, middle)
    return (low + high) / 2


def _logs(found: Calibration) -> list[float]:
    return [math.log(getattr(found, name)) for name in NAMES]


def _moved(found: Calibration, moves: Sequence[float]) -> Calibration:
    changed = {name: getattr(found, name) * math.exp(move) for name, move in zip(NAMES, moves, strict=True)}
    return dataclasses.replace(found, **changed)


def _solved(rows: Sequence[Row]) -> list[float]:
    """Return the least-squares solution of a system of three unknowns, by elimination."""
    size = len(NAMES)
    normal = [[sum(slopes[i] * slopes[j] for _, slopes in rows) for j in range(size)] for i in range(size)]
    right = [sum(value * slopes[i] for value, slopes in rows) for i in range(size)]
    for i in range(size):
        for j in range(i + 1, size):
            factor = normal[j][i] / normal[i][i]
            normal[j] = [below - factor * above for below, above in zip(normal[j], normal[i], strict=True)]
            right[j] -= factor * right[i]
    found = [0.0] * size
    for i in reversed(range(size)):
        found[i] = (right[i] - sum(normal[i][j] * found[j] for j in range(i + 1, size))) / normal[i][i]
    return found
