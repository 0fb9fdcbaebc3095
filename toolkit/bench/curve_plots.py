"""The figures of a sweep: what grows with the load, with its knee and its cliff, and latency against throughput."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from toolkit.bench import plots
from toolkit.bench.plots import BAD, FIRST, INK, SECOND, THIRD, Plot
from toolkit.bench.sweeping import Curve, Step

AXES = {"concurrency": "requests in flight", "rate": "requests/s that are sent"}


def draw(curve: Curve) -> list[Plot]:
    """Return every figure that there is data for; none where fewer than two loads were answered."""
    steps = [step for step in curve.steps if step.e2e_mean_ms is not None]
    if len(steps) < 2:
        return []
    axis = AXES[curve.what]
    return [
        plots.plot(
            "throughput-by-load", "Throughput against load", f"Output tokens per second over {axis}.",
            _by_load(curve, steps, (("tokens/s", FIRST, lambda step: step.tokens_per_s),), "output tokens/s"),
        ),
        plots.plot(
            "latency-by-load", "Latency against load", "Both axes are logarithmic.",
            _by_load(curve, steps, LATENCIES, "ms", is_log=True),
        ),
        plots.plot(
            "latency-by-throughput", "Latency against throughput",
            "Each point is a load: where the line turns up, or back, more load buys only waiting.", _hook(steps),
        ),
    ]  # fmt: skip


Line = tuple[str, str, Callable[[Step], float | None]]
LATENCIES: tuple[Line, ...] = (
    ("TTFT p50", SECOND, lambda step: step.ttft_p50_ms),
    ("TTFT p95", BAD, lambda step: step.ttft_p95_ms),
    ("ITL p50", FIRST, lambda step: step.itl_p50_ms),
    ("ITL p95", THIRD, lambda step: step.itl_p95_ms),
)


def _by_load(
    curve: Curve, steps: Sequence[Step], lines: Sequence[Line], label: str, *, is_log: bool = False
) -> Callable[[Any], None]:
    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for name, colour, measure in lines:
            points = [(step.load, value) for step in steps if (value := measure(step)) is not None]
            if points:
                axes.plot(
                    [x for x, _ in points], [y for _, y in points], color=colour, marker="o", markersize=4, label=name
                )
        _at_loads(axes, [step.load for step in steps])
        if is_log:
            plots.logarithmic(axes)
            axes.margins(y=0.15)
            axes.legend(loc="lower left", ncols=4, bbox_to_anchor=(0, 1))
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(AXES[curve.what])
        axes.set_ylabel(label)
        _marks(axes, curve)

    return paint


def _at_loads(axes: Any, loads: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(loads))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _marks(axes: Any, curve: Curve) -> None:
    """Mark the knee with a line, and what lies beyond the cliff with a shade."""
    if curve.is_knee_inside and curve.knee is not None:
        axes.axvline(curve.knee, color=INK, linewidth=1, linestyle="--")
        _said(axes, curve.knee, "knee", INK)
    if curve.cliff is not None:
        axes.axvspan(curve.cliff.last_good, curve.cliff.first_bad, color=BAD, alpha=0.15, linewidth=0)
        _said(axes, curve.cliff.first_bad, "cliff", BAD)


def _said(axes: Any, load: float, text: str, colour: str) -> None:
    axes.annotate(
        text, (load, 0.03), xycoords=("data", "axes fraction"), xytext=(-4, 0), textcoords="offset points",
        fontsize=9, color=colour, ha="right",
    )  # fmt: skip


def _hook(steps: Sequence[Step]) -> Callable[[Any], None]:
    def paint(figure: Any) -> None:
        axes = figure.subplots()
        points = [(step.tokens_per_s, step.e2e_mean_ms or 0.0, f"{step.load:g}") for step in steps]
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], color=FIRST, linewidth=1.5)
        plots.named(axes, points, THIRD)
        axes.set_xlabel("output tokens/s of the server")
        axes.set_ylabel("mean end to end, ms")
        axes.set_ylim(bottom=0)

    return paint
