"""What a command says: results on stdout, everything else on stderr; one JSON document under --json."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from toolkit.specs import Progress

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds between two progress lines where stderr is not a terminal.
PLAIN_PROGRESS_EVERY_S = 10.0


def json_option(command: F) -> F:
    """Add --json: exactly one document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(command)


def examples(*lines: str) -> str:
    """Return a help epilog with examples, one per line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def document(value: Any) -> None:
    """Print the one JSON document of --json."""
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """Print a table that fits the terminal; RIGHT names the columns aligned right."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    console(error=False).print(made)


def text(line: str = "") -> None:
    """Print a line of the result."""
    click.echo(line)


def note(line: str) -> None:
    """Say something that is not the result."""
    click.echo(line, err=True)


def warn(line: str) -> None:
    """Say something that the user should act on."""
    click.echo(f"Warning: {line}", err=True)


def console(*, error: bool) -> Any:
    """Return a rich console on stdout or stderr; 80 columns where the width is unknown."""
    from rich.console import Console

    return Console(stderr=error, highlight=False, soft_wrap=False, emoji=False)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Yield a function (step, done, total) that draws bars with an estimate, or plain lines without a terminal."""
    if sys.stderr.isatty():
        with _bars() as report:
            yield report
    else:
        yield _plain_lines()


@contextlib.contextmanager
def _bars() -> Iterator[Progress]:
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<28}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Bars(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console(error=True)) as bars:
        tasks: dict[str, Any] = {}

        def report(step: str, done: float, total: float) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield report


def _plain_lines() -> Progress:
    started: dict[str, float] = {}
    said: dict[str, float] = {}

    def report(step: str, done: float, total: float) -> None:
        now = time.monotonic()
        first = started.setdefault(step, now)
        is_last = done >= total
        if not is_last and now - said.get(step, first) < PLAIN_PROGRESS_EVERY_S and step in said:
            return
        said[step] = now
        elapsed = now - first
        left = f", about {elapsed * (total - done) / done:.0f} s left" if 0 < done < total and elapsed > 1 else ""
        click.echo(f"{step}: {100 * done / max(total, 1e-9):.0f}%{left}", err=True)

    return report
