"""A load test as it goes: a live display on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.cli import output

if TYPE_CHECKING:
    from toolkit.bench import Snapshot

PLAIN_LINE_EVERY_S = 5.0
BARS = "▁▂▃▄▅▆▇█"
#: Columns of a sparkline, each so many seconds.
COLUMNS = 56
COLUMN_S = 0.5

Watch = Callable[["Snapshot"], None]


@contextlib.contextmanager
def shown() -> Iterator[Watch]:
    """Yield what shows a snapshot."""
    if not sys.stderr.isatty():
        yield plain_lines()
        return
    from rich.live import Live

    history = History()
    with Live(console=output.console(error=True), transient=True, auto_refresh=False) as live:
        yield lambda seen: live.update(panel(seen, history.with_this(seen)), refresh=True)


def plain_lines() -> Watch:
    """Return what says a line every few seconds."""
    said_at, started_at = 0.0, time.monotonic()

    def say(seen: Snapshot) -> None:
        nonlocal said_at
        if time.monotonic() - max(said_at, started_at) >= PLAIN_LINE_EVERY_S:
            said_at = time.monotonic()
            rest = f"; server: {known}" if (known := server_facts(seen)) else ""
            output.note(f"{seen.step}: " + ", ".join(f"{name} {value}" for name, value in facts(seen)) + rest)

    return say


class History:
    """The last half minute of a phase, in columns."""

    def __init__(self) -> None:
        self._step = ""
        self._last: tuple[float, int] = (0.0, 0)
        self.tokens_per_s: deque[float | None] = deque(maxlen=COLUMNS)
        self.ttft_ms: deque[float | None] = deque(maxlen=COLUMNS)
        self.in_flight: deque[float | None] = deque(maxlen=COLUMNS)

    def with_this(self, seen: Snapshot) -> History:
        """Take a snapshot, where the last column is old enough."""
        if seen.step != self._step:
            self._step, self._last = seen.step, (0.0, 0)
            for column in (self.tokens_per_s, self.ttft_ms, self.in_flight):
                column.clear()
        at_s, tokens = self._last
        if seen.elapsed_s - at_s >= COLUMN_S:
            self._last = (seen.elapsed_s, seen.output_tokens)
            self.tokens_per_s.append(max(seen.output_tokens - tokens, 0) / (seen.elapsed_s - at_s))
            self.ttft_ms.append(seen.ttft_p50_ms)
            self.in_flight.append(float(seen.in_flight))
        return self


def sparkline(values: Sequence[float | None]) -> str:
    """Return a line of bars from zero to the highest value; what is not known is a space.

    >>> sparkline([0, 1, None, 4])
    '▁▂ █'
    """
    most = max((value for value in values if value is not None), default=0.0)
    return "".join(
        " " if value is None else BARS[round(value / most * (len(BARS) - 1)) if most else 0] for value in values
    )


def facts(seen: Snapshot) -> list[tuple[str, str]]:
    """Return what is said of a snapshot."""
    return [
        ("done", f"{seen.completed:,}"),
        ("in flight", f"{seen.in_flight:,}"),
        ("tokens/s", f"{seen.output_tokens / max(seen.elapsed_s, 1e-9):,.0f}"),
        ("TTFT p50", "-" if seen.ttft_p50_ms is None else f"{seen.ttft_p50_ms:,.0f} ms"),
        ("failed", f"{seen.failed:,}"),
        ("left", "-" if seen.left_s is None else f"{seen.left_s:.0f} s"),
    ]


def server_facts(seen: Snapshot) -> str:
    """Say what the server's metrics said last; empty where they say nothing."""
    server = seen.server or {}
    said = [
        (server.get("requests_active"), "{:.0f} active"),
        (server.get("requests_waiting"), "{:.0f} waiting"),
        (server.get("kv_fraction"), "KV cache {:.0%}"),
        (server.get("gpu_utilization"), "GPU {:.0%}"),
        (server.get("gpu_power_w"), "{:.0f} W"),
        (server.get("cpu_utilization"), "CPU {:.0%}"),
    ]
    return "  ".join(text.format(value) for value, text in said if value is not None)


def panel(seen: Snapshot, history: History) -> Any:
    """Return the display of a snapshot and what came before it."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    grid = Table.grid(padding=(0, 3))
    said = facts(seen)
    grid.add_row(*(f"[dim]{name}[/dim]" for name, _ in said))
    grid.add_row(*(f"[{_style(name, seen)}]{value}[/]" for name, value in said))
    lines = Table.grid(padding=(0, 2))
    for name, values, unit in (
        ("tokens/s", history.tokens_per_s, ""),
        ("TTFT p50", history.ttft_ms, " ms"),
        ("in flight", history.in_flight, ""),
    ):
        known = [value for value in values if value is not None]
        if known:
            lines.add_row(f"[dim]{name}[/dim]", sparkline(values), f"[dim]to {max(known):,.0f}{unit}[/dim]")
    if told := server_facts(seen):
        lines.add_row("[dim]server[/dim]", told, "")
    bar = Table.grid()  # a bar alone does not end its line
    bar.add_row(ProgressBar(total=max(seen.total, 1e-9), completed=seen.done, width=60))
    return Group(f"[bold]{seen.step}[/bold]", bar, grid, lines)


def _style(name: str, seen: Snapshot) -> str:
    return "bold red" if name == "failed" and seen.failed else "bold"
