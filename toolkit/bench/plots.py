"""The report's figures, as SVG that takes its colours from the page: light, dark and print come for free."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.bench.latency import e2e_latency_ms, itl_ms, ttft_ms
from toolkit.bench.summary import tokens_between
from toolkit.specs import RequestRecord

if TYPE_CHECKING:
    from toolkit.bench.several import Row

#: What matplotlib paints → what the page says instead.
INK, GRID, FIRST, SECOND, THIRD, BAD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
PAGE_COLOURS = {
    INK: "currentColor",
    GRID: "var(--grid)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
    BAD: "var(--bad)",
}
MAX_BARS = 250
MAX_POINTS = 4000
BINS = 60

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": INK,
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One figure of the report."""

    name: str
    title: str
    caption: str
    svg: str


def draw(
    records: Sequence[RequestRecord], *, duration_s: float, samples: Sequence[Mapping[str, Any]] = ()
) -> list[Plot]:
    """Return every figure that there is data for; none where nothing succeeded."""
    ok = [record for record in records if record.outcome == "ok" and record.first_token_s is not None]
    if not ok:
        return []
    return [
        plot("over-time", "Latency over time", "Each point is a request, at the time it was due.", _over_time(ok)),
        plot("cdf", "Latency distribution", "The share of requests that took no longer than this.", _cdf(ok)),
        plot(
            "throughput",
            "Throughput over time",
            "Output tokens per second, and requests in flight.",
            _throughput(records, duration_s),
        ),
        plot(
            "timeline",
            "Timeline of requests",
            "One line a request: waiting for the first text, then generating." + _cut(records),
            _timeline(records),
        ),
        plot("tokens", "Tokens per request", "How many requests had so many tokens.", _tokens(ok)),
        *_server(samples),
    ]


#: What the server says of itself → how it is drawn; panels without data are left out.
SERVER_PANELS = (
    ("requests_active", "in flight", FIRST, 1.0),
    ("requests_waiting", "waiting", BAD, 1.0),
    ("kv_fraction", "KV cache, %", SECOND, 100.0),
    ("gpu_utilization", "GPU, %", THIRD, 100.0),
    ("gpu_memory_used_bytes", "GPU, GiB", FIRST, 2**-30),
    ("gpu_power_w", "power, W", THIRD, 1.0),
)


def _server(samples: Sequence[Mapping[str, Any]]) -> list[Plot]:
    known = [panel for panel in SERVER_PANELS if any(one.get(panel[0]) is not None for one in samples)]
    if len(samples) < 2 or not known:
        return []
    said = "The server's own metrics while it was loaded."
    return [plot("server", "What the server said", said, _server_panels(samples, known))]


def _server_panels(
    samples: Sequence[Mapping[str, Any]], panels: Sequence[tuple[str, str, str, float]]
) -> Callable[[Any], None]:
    def paint(figure: Any) -> None:
        figure.set_figheight(1.1 + 1.1 * len(panels))
        rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, label, colour, factor) in zip(rows, panels, strict=True):
            points = [(one["t_s"], factor * one[name]) for one in samples if one.get(name) is not None]
            axes.plot([x for x, _ in points], [y for _, y in points], color=colour, linewidth=1.5)
            axes.set_ylabel(label)
            axes.set_ylim(0, 1.15 * max(y for _, y in points) or 1.0)
        rows[-1].set_xlabel("seconds since the start")

    return paint


def draw_several(rows: Sequence[Row]) -> list[Plot]:
    """Return throughput against latency over several runs; nothing where none has both."""
    shown = [row for row in rows if row.itl_p50_ms is not None and row.ttft_p95_ms is not None]
    if not shown:
        return []
    speed = "What one user gets against what the server gives: up and to the right is better."
    wait = "How long the slowest twentieth waits for its first text, at so many tokens per second."
    return [
        plot("pareto", "Speed of one answer against throughput", speed, _pareto(shown)),
        plot("ttft", "Waiting against throughput", wait, _waiting(shown)),
    ]


def _pareto(rows: Sequence[Row]) -> Callable[[Any], None]:
    def paint(figure: Any) -> None:
        axes = figure.subplots()
        points = [(row.tokens_per_s, 1000 / row.itl_p50_ms, row) for row in rows if row.itl_p50_ms]
        front = sorted((x, y) for x, y, row in points if row.is_on_front)
        axes.plot([x for x, _ in front], [y for _, y in front], color=FIRST, linewidth=1.5, label="the front")
        named(axes, [(x, y, row.name) for x, y, row in points], THIRD)
        axes.set_ylabel("tokens/s of one answer (1 / ITL p50)")
        axes.set_xlabel("output tokens/s of the server")
        axes.set_ylim(0, 1.2 * max(y for _, y, _ in points))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1))

    return paint


def _waiting(rows: Sequence[Row]) -> Callable[[Any], None]:
    def paint(figure: Any) -> None:
        axes = figure.subplots()
        named(axes, [(row.tokens_per_s, row.ttft_p95_ms or 0.0, row.name) for row in rows], SECOND)
        logarithmic(axes)
        axes.margins(y=0.2)
        axes.set_ylabel("TTFT p95, ms, logarithmic")
        axes.set_xlabel("output tokens/s of the server")

    return paint


def logarithmic(axes: Any) -> None:
    """Make the upright axis of what is drawn logarithmic, with as many plain numbers as have room."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 20 * low else (1, 1.5, 2, 3, 4, 5, 7)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def named(axes: Any, points: Sequence[tuple[float, float, str]], colour: str) -> None:
    axes.scatter([x for x, _, _ in points], [y for _, y, _ in points], s=28, color=colour, linewidths=0)
    for x, y, name in points:
        said = axes.annotate(name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8, color=INK)
        said.set_parse_math(False)  # a run may be called what is no mathematics
    axes.margins(x=0.15)


def _cut(records: Sequence[RequestRecord]) -> str:
    return f" The first {MAX_BARS} of {len(records)} are shown." if len(records) > MAX_BARS else ""


def plot(name: str, title: str, caption: str, paint: Callable[[Any], None]) -> Plot:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The salt keeps the ids of two figures on one page apart, and the same data giving the same bytes.
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        figure.patch.set_alpha(0)
        paint(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return Plot(name=name, title=title, caption=caption, svg=_for_page(text.getvalue(), title))


def _for_page(svg: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    for painted, said in PAGE_COLOURS.items():
        svg = svg.replace(painted, said)
    svg = re.sub(r'width="[0-9.]+pt" height="[0-9.]+pt"', f'role="img" aria-label="{title}"', svg, count=1)
    return re.sub(r"'DejaVu Sans'[^;\"]*", "inherit", svg)


def _thinned(records: Sequence[RequestRecord]) -> Sequence[RequestRecord]:
    return records[:: max(1, len(records) // MAX_POINTS)]


def _over_time(ok: Sequence[RequestRecord]) -> Callable[[Any], None]:
    def paint(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes, measure, colour, label in (
            (upper, ttft_ms, FIRST, "TTFT, ms"),
            (lower, itl_ms, SECOND, "ITL, ms"),
        ):
            points = [(record.scheduled_s, value) for record in _thinned(ok) if (value := measure(record)) is not None]
            axes.scatter([x for x, _ in points], [y for _, y in points], s=12, color=colour, alpha=0.8, linewidths=0)
            axes.set_ylabel(label)
            axes.set_ylim(0, 1.15 * max((y for _, y in points), default=1.0) or 1.0)
            axes.set_xlim(left=0)
        lower.set_xlabel("seconds since the start")

    return paint


def _cdf(ok: Sequence[RequestRecord]) -> Callable[[Any], None]:
    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for measure, colour, label in (
            (itl_ms, SECOND, "ITL"),
            (ttft_ms, FIRST, "TTFT"),
            (e2e_latency_ms, THIRD, "end to end"),
        ):
            values = sorted(value for record in ok if (value := measure(record)) is not None)
            if values:
                shares = [(index + 1) / len(values) for index in range(len(values))]
                axes.step([values[0], *values], [0, *shares], where="post", color=colour, label=label, linewidth=1.8)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("ms, logarithmic")
        axes.set_ylabel("share of requests")
        axes.set_ylim(0, 1.02)
        axes.legend(loc="lower left", ncols=3, bbox_to_anchor=(0, 1))

    return paint


def _throughput(records: Sequence[RequestRecord], duration_s: float) -> Callable[[Any], None]:
    def paint(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        width = duration_s / BINS
        edges = [index * width for index in range(BINS)]
        tps = [sum(tokens_between(record, edge, edge + width) for record in records) / width for edge in edges]
        upper.stairs(tps, [*edges, duration_s], fill=True, color=FIRST, alpha=0.7, linewidth=0)
        upper.set_ylabel("tokens/s")
        middles = [edge + width / 2 for edge in edges]
        in_flight = [sum(record.sent_s <= at < record.end_s for record in records) for at in middles]
        lower.step(middles, in_flight, where="mid", color=SECOND, linewidth=1.5)
        lower.set_ylabel("in flight")
        lower.set_ylim(bottom=0)
        lower.set_xlabel("seconds since the start")

    return paint


def _timeline(records: Sequence[RequestRecord]) -> Callable[[Any], None]:
    def paint(figure: Any) -> None:
        axes = figure.subplots()
        shown = sorted(records, key=lambda record: record.scheduled_s)[:MAX_BARS]
        figure.set_figheight(min(9.0, 1.6 + 0.05 * len(shown)))
        for is_good, until, since, colour, label in (
            (True, _first_or_end, lambda record: record.scheduled_s, SECOND, "waiting for the first text"),
            (True, lambda record: record.end_s, _first_or_end, FIRST, "generating"),
            (False, lambda record: record.end_s, lambda record: record.scheduled_s, BAD, "failed or cancelled"),
        ):
            bars = [(row, record) for row, record in enumerate(shown) if (record.outcome == "ok") is is_good]
            if bars:
                starts = [since(record) for _, record in bars]
                lengths = [until(record) - start for (_, record), start in zip(bars, starts, strict=True)]
                axes.barh([row for row, _ in bars], lengths, left=starts, height=0.8, color=colour, label=label)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("seconds since the start")
        axes.set_ylabel("request")
        axes.legend(loc="lower left", ncols=3, bbox_to_anchor=(0, 1))

    return paint


def _first_or_end(record: RequestRecord) -> float:
    return record.end_s if record.first_token_s is None else record.first_token_s


def _tokens(ok: Sequence[RequestRecord]) -> Callable[[Any], None]:
    def paint(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, values, colour, label in (
            (left, [record.input_tokens for record in ok], SECOND, "input tokens"),
            (right, [record.output_tokens for record in ok], FIRST, "output tokens"),
        ):
            low, high = min(values), max(values)
            step = max(1, (high - low) // 30)
            # Bars stand on whole numbers, with room beside a single one, which would be endless otherwise.
            axes.hist(values, bins=[edge - 0.5 for edge in range(low, high + 2 * step, step)], color=colour)
            axes.set_xlim(low - step - 0.5, high + step + 0.5)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_xlabel(label)
        left.set_ylabel("requests")

    return paint
