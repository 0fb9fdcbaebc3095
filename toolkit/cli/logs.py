"""`trtk logs`: a server's log."""

from __future__ import annotations

import time
from pathlib import Path

import click

from toolkit.cli import output

#: How often a followed log is looked at.
FOLLOW_S = 0.25


@click.command(epilog=output.examples("trtk logs", "trtk logs demo-int4 -f -n 20"))
@click.argument("name", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the server ends, or Ctrl-C.")
@click.option("-n", "--lines", default=100, show_default=True, type=click.IntRange(0), help="Last lines to begin with.")
def logs(name: str | None, follow: bool, lines: int) -> None:
    """Show a server's log; it can be read after the server is gone."""
    from toolkit.serve import log_path, only_name

    chosen = name or only_name()
    path = log_path(chosen)
    text = path.read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines()[-lines:] if lines else ():
        output.text(line)
    if follow:
        _follow(path, chosen, start=path.stat().st_size)


def _follow(path: Path, name: str, *, start: int) -> None:
    from toolkit.serve import running

    with path.open("rb") as stream:
        stream.seek(start)
        is_alive = True
        while True:
            if piece := stream.read():
                click.echo(piece.decode(errors="replace"), nl=False)
            if not is_alive:
                return
            # Looked at before the last read, so that its last words are shown.
            is_alive = any(one.endpoint.name == name and one.state != "dead" for one in running())
            time.sleep(FOLLOW_S)
