"""How `trtk top` looks: figures as lines that fit 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.cli.status import duration

if TYPE_CHECKING:
    from toolkit.monitoring import EngineFigures, GatewayFigures, GpuFigures, ModelFigures, ServerFigures

ABSENT = "-"
BAR_CELLS = 24
STATE_STYLES = {"ready": "green", "answers": "green", "not ready": "yellow"}
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One server at one moment."""

    name: str
    state: str  # ready, not ready, dead, stopped; of a URL: answers, not reached
    why: str = ""
    uptime_s: float | None = None
    url: str = ""
    figures: ServerFigures | None = None
    gateway: GatewayFigures | None = None


def drawn(seen: Sequence[Seen], *, footer: str = "") -> Any:
    """Return every server's lines."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    for one in seen:
        parts += [_head(one), *(_lines(one) if one.figures else ()), Text()]
    return Group(*parts, Text(footer, style="dim")) if footer else Group(*parts[:-1])


def _head(one: Seen) -> Any:
    from rich.text import Text

    line = Text(one.name, style="bold")
    if one.name != one.url:
        line.append(f"  {one.state}", style=STATE_STYLES.get(one.state, "bold red"))
    if one.uptime_s is not None:
        line.append(f"  up {duration(one.uptime_s)}", style="not bold dim")
    if one.url and one.name != one.url:
        line.append(f"  {one.url}", style="not bold dim")
    if one.why:
        line.append(f"\n  {one.why}", style="not bold yellow")
    return line


def _lines(seen: Seen) -> list[Any]:
    figures = seen.figures
    assert figures is not None
    parts: list[Any] = [line for engine in figures.engines for line in _engine(engine, len(figures.engines) > 1)]
    if not figures.engines:
        parts.append(_labelled("engine", "its own metrics (nv_trt_llm_*) are not exported here"))
    if seen.gateway:
        parts += _gateway(seen.gateway)
    parts.append(_machine(figures))
    parts += [_gpu(index, gpu) for index, gpu in enumerate(figures.gpus)]
    return [*parts, _models(figures.models)]


def _labelled(label: str, text: str) -> Any:
    from rich.text import Text

    return Text.assemble((f"  {label:<10}", "dim"), text)


def _engine(engine: EngineFigures, is_named: bool) -> list[Any]:
    from rich.text import Text

    requests = (
        f"{number(engine.requests_active)} active of {number(engine.requests_max)}  "
        f"{number(engine.requests_scheduled)} scheduled  {number(engine.requests_waiting)} waiting"
    )
    cache = Text.assemble(("  KV cache  ", "dim"), bar(engine.kv_fraction), f" {share(engine.kv_fraction)}  ")
    cache.append(f"{number(engine.kv_blocks_used)} of {number(engine.kv_blocks_max)} blocks")
    tokens = f"{number(engine.output_tokens_per_s, 1)} out/s  {number(engine.input_tokens_per_s, 1)} in/s"
    named = [_labelled("engine", engine.model)] if is_named else []
    return [*named, _labelled("requests", requests), cache, _labelled("tokens", tokens)]


def _gateway(gateway: GatewayFigures) -> list[Any]:
    now = (
        f"{number(gateway.in_flight)} in flight  {number(gateway.waiting)} waiting  "
        f"{number(gateway.requests_per_s, 2)} req/s  {number(gateway.output_tokens_per_s, 1)} out/s  "
        f"first {ABSENT if gateway.ttft_ms is None else f'{gateway.ttft_ms:,.0f} ms'}"
    )
    statuses = "  ".join(f"{status}: {number(count)}" for status, count in sorted(gateway.requests.items()))
    return [_labelled("openai", now), *([_labelled("", statuses)] if statuses else [])]


def _machine(figures: ServerFigures) -> Any:
    memory = f"{gib(figures.memory_used_bytes)} of {gib(figures.memory_total_bytes)} GiB"
    return _labelled("machine", f"CPU {share(figures.cpu_utilization)}  memory {memory}")


def _gpu(index: int, gpu: GpuFigures) -> Any:
    memory = f"{gib(gpu.memory_used_bytes)} of {gib(gpu.memory_total_bytes)} GiB"
    return _labelled(f"GPU {index}", f"{share(gpu.utilization)}  memory {memory}  {number(gpu.power_w)} W")


def _models(models: Sequence[ModelFigures]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    made.add_column("  model", overflow="ellipsis", no_wrap=True, max_width=26)
    for column in ("req/s", "ok", "failed", "pending", "queue ms", "mean ms"):
        made.add_column(column, justify="right", no_wrap=True)
    for one in models:
        failed = sum(one.requests_failed.values())
        reasons = {reason: count for reason, count in one.requests_failed.items() if count}
        made.add_row(
            f"  {escape(one.model)}",
            number(one.requests_per_s, 2),
            number(one.requests_ok),
            f"[red]{number(failed)}[/red]" if failed else number(failed),
            number(one.pending),
            number(one.queue_ms, 1),
            number(one.duration_ms, 1),
        )
        if reasons:
            said = ", ".join(f"{count:,.0f} {reason.lower()}" for reason, count in sorted(reasons.items()))
            made.add_row(f"    [dim]{said}[/dim]")
    return made


def bar(fraction: float | None) -> str:
    """Return a bar; an unknown fraction is a row of dots."""
    if fraction is None:
        return "·" * BAR_CELLS
    full = round(min(max(fraction, 0.0), 1.0) * BAR_CELLS)
    return "█" * full + "░" * (BAR_CELLS - full)


def share(fraction: float | None) -> str:
    """Return a fraction in percent."""
    return ABSENT if fraction is None else f"{100 * fraction:.0f} %"


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with separators; what is absent is a dash."""
    return ABSENT if value is None else f"{value:,.{digits}f}"


def gib(value: float | None) -> str:
    """Return bytes in GiB."""
    return ABSENT if value is None else f"{value / GIB:,.1f}"
