"""`trtk top`: what the servers do, live in the terminal, once, or as JSON."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import TYPE_CHECKING

import click

from toolkit.cli import output, reaching
from toolkit.errors import MissingError, ServerError, UnknownName
from toolkit.specs import to_json

if TYPE_CHECKING:
    from toolkit.cli.top_view import Seen
    from toolkit.monitoring import Scrape
    from toolkit.serve import ServerStatus

#: The last is the end of input.
QUIT_KEYS = (b"q", b"Q", b"\x04", b"")
#: Rates are over so many seconds at most: a request's tokens count when it ends, and most last longer than one reading.
WINDOW_S = 10.0
#: Readings of a cumulative counter that are too near each other give rates that jump.
SHORTEST_INTERVAL_S = 0.2


@click.command(epilog=output.examples("trtk top", "trtk top demo-int4 --once --json"))
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--url", "urls", multiple=True, help="Read these metrics instead: http://host:8002/metrics.")
@click.option(
    "--interval",
    type=click.FloatRange(SHORTEST_INTERVAL_S),
    default=1.0,
    show_default=True,
    help="Seconds between two readings.",
)
@click.option("--once", is_flag=True, help="Read twice, print once and end; so it is where there is no terminal.")
@output.json_option
def top(names: tuple[str, ...], urls: tuple[str, ...], interval: float, once: bool, as_json: bool) -> None:
    """Show what the servers do: requests, KV cache, tokens/s, failures, memory. `q` ends it.

    Without NAME, every server that trtk started. A dash is what a server does not export, or what nothing happened for.
    Rates are over the last 10 seconds; a request's tokens count when it ends.
    """
    watch = Watch(names, urls)
    if as_json or once or not sys.stdout.isatty():
        _once(watch, interval, as_json=as_json)
    else:
        _live(watch, interval)


@dataclass
class Watch:
    """The servers that are looked at, and each one's last reading."""

    names: Sequence[str]
    urls: Sequence[str]
    readings: dict[str, list[Scrape]] = field(default_factory=dict)  # of the last seconds, by URL

    def look(self) -> list[Seen]:
        """Read every server once; what cannot be read says why."""
        seen = [self._read(url, name=url, state="") for url in self.urls]
        return seen if self.urls and not self.names else seen + [self._server(one) for one in self._servers()]

    def _servers(self) -> list[ServerStatus | str]:
        from toolkit.serve import running

        found = {one.endpoint.name: one for one in running()}
        if not self.readings:  # the first look: what is asked for must be there
            for name in self.names:
                if name not in found:
                    raise UnknownName("server", name, found, command="trtk status")
            if not found:
                raise MissingError("No server is running here.", hint=reaching.START_HINT)
        return [found.get(name, name) for name in self.names or found]

    def _server(self, status: ServerStatus | str) -> Seen:
        from toolkit.cli.top_view import Seen

        if isinstance(status, str):
            return Seen(name=status, state="stopped", why="It was stopped by another command.")
        end = status.endpoint
        if status.state == "dead":
            return Seen(
                name=end.name, state="dead", why=f"`trtk logs {quote(end.name)}` shows its log; was pid {end.pid}."
            )
        seen = self._read(
            end.metrics_url, name=end.name, state=status.state, why=status.problem, uptime_s=status.uptime_s
        )
        for url in reaching.gateway_metrics(end):
            seen = self._with_gateway(seen, url)
        return seen

    def _with_gateway(self, seen: Seen, url: str) -> Seen:
        from toolkit import monitoring

        try:
            now, before = self._reading(url)
        except (ServerError, MissingError) as error:
            return replace(seen, why=seen.why or f"OpenAI endpoint: {error}")
        return replace(seen, gateway=monitoring.gateway_figures(now, before))

    def _reading(self, url: str) -> tuple[Scrape, Scrape | None]:
        """Read an exporter; return that and the oldest reading that rates are over."""
        from toolkit import monitoring

        now = monitoring.scrape(url)
        kept = [one for one in self.readings.get(url, ()) if now.taken_at_s - one.taken_at_s <= WINDOW_S]
        self.readings[url] = [*kept, now]
        return now, kept[0] if kept else None

    def _read(self, url: str, *, name: str, state: str, why: str = "", uptime_s: float | None = None) -> Seen:
        from toolkit import monitoring
        from toolkit.cli.top_view import Seen

        try:
            now, before = self._reading(url)
        except ServerError as error:
            return Seen(name=name, state=state or "not reached", why=why or str(error), uptime_s=uptime_s, url=url)
        made = monitoring.figures(now, before)
        return Seen(name=name, state=state or "answers", why=why, uptime_s=uptime_s, url=url, figures=made)


def _once(watch: Watch, interval: float, *, as_json: bool) -> None:
    watch.look()
    time.sleep(interval)
    seen = watch.look()
    if as_json:
        output.document({"servers": [to_json(one) for one in seen]})
    else:
        from toolkit.cli import top_view

        output.console(error=False).print(top_view.drawn(seen))
    if not any(one.figures for one in seen):
        raise ServerError(f"{seen[0].name} is {seen[0].state}: {seen[0].why}", hint="`trtk status` says how they are.")


def _live(watch: Watch, interval: float) -> None:
    from rich.live import Live

    from toolkit.cli import top_view

    seen = watch.look()
    with _keys() as has_quit, Live(console=output.console(error=False), screen=True, auto_refresh=False) as live:
        while True:
            live.update(top_view.drawn(seen, footer="q ends; rates are over the last 10 s"), refresh=True)
            if has_quit(interval):
                return
            seen = watch.look()


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits so many seconds, and says whether a key was pressed that ends the view."""
    if not sys.stdin.isatty():
        yield _slept
        return
    import termios
    import tty

    kept = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield _was_quit
    except KeyboardInterrupt:
        return
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, kept)


def _slept(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _was_quit(seconds: float) -> bool:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left)[0] and os.read(sys.stdin.fileno(), 1) in QUIT_KEYS:
            return True
    return False
