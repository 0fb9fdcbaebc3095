"""Figures of a plan as SVG that takes its colours from the page: bars, curves and points on plain axes."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 44
TICKS = 5
#: Widths of letters, in shares of their height: enough to keep labels apart.
LETTER = 0.58
FONT_SIZE = 11


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line through points, with a band around it where the truth may lie."""

    label: str
    colour: str  # a CSS variable of the page
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()  # x, low, high
    has_dots: bool = False


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What a chart shows and how it is scaled."""

    x_label: str
    y_label: str
    is_x_log: bool = False
    is_y_log: bool = False
    marks: Sequence[tuple[float, str]] = ()  # upright lines: x, label
    names: Sequence[tuple[float, float, str]] = field(default_factory=tuple)  # of points: x, y, label


def chart(curves: Sequence[Curve], axes: Axes) -> str:
    """Return curves on axes."""
    xs = [x for curve in curves for x, _ in curve.points] + [x for x, _ in axes.marks]
    ys = [y for curve in curves for _, y in curve.points]
    ys += [value for curve in curves for _, low, high in curve.band for value in (low, high)]
    x_at, x_ticks = _scale(xs, LEFT, WIDTH - RIGHT, is_log=axes.is_x_log)
    y_at, y_ticks = _scale(ys, HEIGHT - BOTTOM, TOP, is_log=axes.is_y_log)
    parts = [_grid(x_at, x_ticks, y_at, y_ticks), _titles(axes)]
    parts += [_curve(curve, x_at, y_at) for curve in curves]
    parts += [_mark(x_at(x), label) for x, label in axes.marks]
    parts.append(_names(axes.names, x_at, y_at))
    return _svg(HEIGHT, "".join(parts), label=f"{axes.y_label} over {axes.x_label}")


def stacked_bar(parts: Sequence[tuple[str, float, str]]) -> str:
    """Return one bar of (label, size, colour), with the labels below it."""
    total = sum(size for _, size, _ in parts) or 1.0
    left, drawn, labels = 8.0, [], []
    label_left = 8.0
    for name, size, colour in parts:
        width = (WIDTH - 16) * size / total
        drawn.append(f'<rect x="{left:.1f}" y="8" width="{width:.1f}" height="34" fill="{colour}"/>')
        left += width
        labels.append(f'<rect x="{label_left:.1f}" y="54" width="10" height="10" fill="{colour}"/>')
        labels.append(_text(label_left + 14, 63, name))
        label_left += 30 + FONT_SIZE * LETTER * len(name)
    return _svg(74, "".join([*drawn, *labels]), label="memory")


def _svg(height: int, inside: str, *, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(label)}" '
        f'font-size="{FONT_SIZE}" fill="currentColor">{inside}</svg>'
    )


def _scale(
    values: Sequence[float], start: float, stop: float, *, is_log: bool
) -> tuple[Callable[[float], float], list[float]]:
    """Return where a value lies between START and STOP, and the values that are marked."""
    low, high = min(values), max(values)
    if is_log:
        low, high = math.log10(max(low, 1e-9)), math.log10(max(high, 1e-9))
        ticks = [10.0**power * step for power in range(math.floor(low), math.ceil(high) + 1) for step in (1, 2, 5)]
        ticks = [tick for tick in ticks if low - 1e-9 <= math.log10(tick) <= high + 1e-9]
    else:
        low = 0.0
        step = _step(high or 1.0)
        high = step * math.ceil((high or 1.0) / step)
        ticks = [step * index for index in range(round(high / step) + 1)]
    span = (high - low) or 1.0

    def at(value: float) -> float:
        measured = math.log10(max(value, 1e-9)) if is_log else value
        return start + (stop - start) * (measured - low) / span

    return at, ticks


def _step(high: float) -> float:
    rough = high / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= rough)


def _grid(
    x_at: Callable[[float], float], x_ticks: list[float], y_at: Callable[[float], float], y_ticks: list[float]
) -> str:
    lines = []
    for tick in y_ticks:
        y = y_at(tick)
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--grid)"/>')
        lines.append(_text(LEFT - 6, y + 4, f"{tick:,g}", anchor="end"))
    for tick in x_ticks:
        x = x_at(tick)
        lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="var(--grid)"/>')
        lines.append(_text(x, HEIGHT - BOTTOM + 15, f"{tick:,g}", anchor="middle"))
    return "".join(lines)


def _titles(axes: Axes) -> str:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 12 {middle:.0f})"'
    return _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, axes.x_label, anchor="middle") + _text(
        12, middle, axes.y_label, anchor="middle", more=turned
    )


def _curve(curve: Curve, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> str:
    drawn = ""
    if curve.band:
        upper = [f"{x_at(x):.1f},{y_at(high):.1f}" for x, _, high in curve.band]
        lower = [f"{x_at(x):.1f},{y_at(low):.1f}" for x, low, _ in reversed(curve.band)]
        drawn += f'<polygon points="{" ".join(upper + lower)}" fill="{curve.colour}" opacity="0.18"/>'
    places = [(x_at(x), y_at(y)) for x, y in curve.points]
    if curve.has_dots:
        drawn += "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{curve.colour}"/>' for x, y in places)
    else:
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn += f'<polyline points="{line}" fill="none" stroke="{curve.colour}" stroke-width="2"/>'
    return drawn


def _mark(x: float, label: str) -> str:
    is_right = x > WIDTH / 2
    place = f'x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
    line = f'<line {place} stroke="var(--bad)" stroke-dasharray="5 4"/>'
    return line + _text(
        x - 5 if is_right else x + 5, TOP + 11, label, anchor="end" if is_right else "start", more='class="bad"'
    )


def _names(
    names: Sequence[tuple[float, float, str]], x_at: Callable[[float], float], y_at: Callable[[float], float]
) -> str:
    """Return labels of points; one that would cover another is left out, the table has it."""
    drawn, taken = [], list[tuple[float, float, float]]()
    for x, y, name in names:
        width = FONT_SIZE * LETTER * len(name)
        is_right = x_at(x) + 8 + width > WIDTH
        left, top = (x_at(x) - 8 - width if is_right else x_at(x) + 7), y_at(y) + 4
        if any(abs(top - other) < FONT_SIZE and left < end and left + width > start for other, start, end in taken):
            continue
        taken.append((top, left, left + width))
        drawn.append(_text(left, top, name))
    return "".join(drawn)


def _text(x: float, y: float, text: str, *, anchor: str = "start", more: str = 'class="label"') -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{html.escape(text)}</text>'
