"""How fast a server will be: a roofline whose parts add up, requests in flight, and an interval. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from toolkit.plan.speed import intervals
from toolkit.plan.speed.flow import (
    BATCH_SIZE,
    KV_CACHE,
    Ceiling,
    Flow,
    Line,
    ceiling_of,
    closed_loop,
    open_loop,
    steady,
)
from toolkit.plan.speed.rates import GIGA, TERA, Basis, architecture_of, basis_of, calibrated, is_own, release_of
from toolkit.plan.speed.shapes import shape_of
from toolkit.plan.speed.steps import BOUND_BY
from toolkit.specs import (
    CALIBRATED,
    EXTRAPOLATED,
    FITTED,
    Calibration,
    HybridModelSpec,
    LatentModelSpec,
    ModelSpec,
    Prediction,
    ServerSetup,
    SpeedConstants,
    Workload,
)

__all__ = ["Estimate", "estimate", "predict", "reached", "throughput_at"]

#: More requests would gain throughput by at least this share of what the batch grows, so the limit is what binds.
LIMIT_BINDS = 0.25
#: What a model's own kind of attention adds to the doubt, where nothing of its kind was fitted to.
UNSEEN_MODEL_SD = 0.2


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A prediction's inner values."""

    line: Line
    basis: Basis
    ceiling: Ceiling
    flow: Flow


def predict(
    setup: ServerSetup, workload: Workload, *, constants: SpeedConstants, calibration: Calibration | None = None
) -> Prediction:
    """Return throughput and latencies of a server under a workload, each with its interval of 80 %.

    With neither concurrency nor rate in the workload, as many requests are in flight as the limits let in.
    """
    found = estimate(setup, workload, constants=constants, calibration=calibration)
    flow, sd = found.flow, _log_sd(found, constants, is_calibrated=calibration is not None)
    is_rate_given = workload.rate_rps is not None and not flow.is_overloaded
    # Measured behind the same server, a gap between tokens holds what the server adds.
    gap = sd if calibration is not None else math.hypot(sd, constants.log_sd["tpot"])
    first = math.hypot(sd, constants.log_sd["ttft"])
    return Prediction(
        ttft_ms=intervals.around(1e3 * flow.ttft_s, first),
        tpot_ms=intervals.around(1e3 * flow.tpot_s, gap),
        output_tps=intervals.around(flow.output_tps, 0.0 if is_rate_given else sd),
        batch=flow.in_flight,
        bound_by=_bound_by(found),
        provenance=_provenance(found, calibration),
        assumptions=_assumptions(found, constants, calibration),
    )


def estimate(
    setup: ServerSetup, workload: Workload, *, constants: SpeedConstants, calibration: Calibration | None = None
) -> Estimate:
    """Return what a prediction is made of."""
    shape = shape_of(setup)
    basis = basis_of(setup, shape, constants)
    if calibration is not None:
        basis = calibrated(basis, calibration, setup)
    own = calibration if calibration is not None and is_own(calibration, setup) else None
    line = Line(
        setup=setup,
        workload=workload,
        shape=shape,
        rates=basis.rates,
        bends=own.bends if own else (),
        crowds=calibration.crowds if calibration is not None else (),
    )
    ceiling = ceiling_of(line)
    if workload.rate_rps is not None:
        flow = open_loop(line, ceiling, workload.rate_rps)
    elif workload.concurrency is not None:
        flow = closed_loop(line, ceiling, workload.concurrency)
    else:
        flow = steady(line, ceiling.requests)
    return Estimate(line=line, basis=basis, ceiling=ceiling, flow=flow)


def reached(setup: ServerSetup, constants: SpeedConstants) -> tuple[float, float, float]:
    """Return TFLOPS, GB/s and milliseconds a step: a calibration's constants, before anything is measured."""
    rates = basis_of(setup, shape_of(setup), constants).rates
    return 1.0 / (rates.flop * TERA), 1.0 / (rates.weight_byte * GIGA), 1e3 * (rates.step + rates.launch)


def throughput_at(found: Estimate, in_flight: float) -> float:
    """Return the output tokens per second with IN_FLIGHT requests let in, whatever the limits."""
    return steady(found.line, in_flight).output_tps


def _is_full(found: Estimate) -> bool:
    return found.flow.in_flight >= found.ceiling.requests * 0.999


def _gain_of_more(found: Estimate) -> float:
    """Return the share of a step that does not grow with the batch: what one more request gets for nothing."""
    step = sum(found.flow.parts.values())
    more = sum(steady(found.line, found.flow.in_flight * 1.1).parts.values())
    return 1.0 - (more - step) / (0.1 * step)


def _bound_by(found: Estimate) -> str:
    is_waiting, limit = found.flow.waiting >= 1.0, found.ceiling.limit
    # Steps that are full of tokens are as fast as the card; another limit would not help.
    is_limited = _is_full(found) and limit in {KV_CACHE, BATCH_SIZE}
    if is_limited and (is_waiting or _gain_of_more(found) > LIMIT_BINDS):
        return limit
    shares: dict[str, float] = {}
    for part, seconds in found.flow.parts.items():
        shares[BOUND_BY[part]] = shares.get(BOUND_BY[part], 0.0) + seconds
    return max(shares, key=lambda name: shares[name])


def _log_sd(found: Estimate, constants: SpeedConstants, *, is_calibrated: bool) -> float:
    residual = constants.log_sd["residual_many" if found.line.shape.tp > 1 else "residual_one"]
    if not is_calibrated:
        residual = math.hypot(residual, *_unseen_sds(found.line.setup, constants))
    sd = intervals.log_sd_of(found.flow.parts, found.basis.log_sd, residual=residual)
    if not _is_full(found) or found.ceiling.limit != KV_CACHE:
        return sd
    # What the cache gets is what everything else leaves: a GiB more or less there moves a small pool far.
    line = found.line
    pool = line.setup.kv_capacity_tokens * line.shape.read_bytes(line.workload.tokens) / line.workload.tokens
    doubt = min(0.7, constants.log_sd["memory_bytes"] / max(pool, 1.0))
    return math.hypot(sd, _gain_of_more(found) * doubt)


def _unseen_sds(setup: ServerSetup, constants: SpeedConstants) -> Iterator[float]:
    """Yield the doubt of everything about a server that no figure of the fit shows."""
    if _is_unseen(setup.model):
        yield UNSEEN_MODEL_SD
    if release_of(setup) not in constants.releases:
        yield constants.log_sd["release"]


def _provenance(found: Estimate, calibration: Calibration | None) -> str:
    if calibration is not None:
        return CALIBRATED
    is_seen = found.basis.is_precision_seen and not _is_unseen(found.line.setup.model)
    return FITTED if found.basis.provenance_rows and is_seen else EXTRAPOLATED


def _is_unseen(model: ModelSpec) -> bool:
    """Return whether a model's attention is of a kind that no published figure is of."""
    return isinstance(model, (LatentModelSpec, HybridModelSpec))


def _assumptions(found: Estimate, constants: SpeedConstants, calibration: Calibration | None) -> tuple[str, ...]:
    setup, said = found.line.setup, []
    if calibration is not None:
        said.append(
            f"{calibration.gpu} was calibrated on {calibration.date} with {calibration.model} in {calibration.recipe}"
            f"{'.' if is_own(calibration, setup) else ', which is scaled to this model and format.'}"
        )
    elif setup.gpu.is_cpu:
        said.append("No CPU is like another: `trtk calibrate` measures this one.")
    elif _is_unseen(setup.model):
        said.append(f"No published figure of a {setup.model.family} is behind this; `trtk calibrate` helps.")
    elif _provenance(found, calibration) == EXTRAPOLATED:
        kind = architecture_of(setup.gpu, constants)
        said.append(
            f"No published figure of {setup.recipe.name} on {kind.name} is behind this; `trtk calibrate` helps."
        )
    if found.line.shape.tp > 1 and setup.gpu.nvlink_gb_per_s < 600:
        said.append("The cards reach each other over PCIe without a detour through the other socket.")
    if found.flow.is_overloaded:
        said.append("Requests come faster than they can be served; the wait is that after a minute.")
    if found.flow.waiting >= 1.0 and not found.flow.is_overloaded:
        said.append(
            f"{found.flow.waiting:.0f} requests wait: {found.ceiling.limit} lets {found.ceiling.requests:.0f} in."
        )
    return tuple(said)
