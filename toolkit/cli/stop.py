"""`trtk stop`: end servers and leave nothing behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from toolkit.cli import output
from toolkit.errors import TrtkError, UsageError
from toolkit.specs import to_json

if TYPE_CHECKING:
    from toolkit.serve import Stopped


@click.command(epilog=output.examples("trtk stop", "trtk stop --all --json"))
@click.argument("name", required=False)
@click.option("--all", "is_all", is_flag=True, help="Stop every server that trtk started.")
@click.option("--timeout", type=float, metavar="S", help="Seconds before it is killed; default: its exit timeout.")
@output.json_option
def stop(name: str | None, is_all: bool, timeout: float | None, as_json: bool) -> None:
    """Stop servers: drain, end, and check that no process and no shared memory is left."""
    from toolkit import serve

    if name and is_all:
        raise UsageError(f"Both a name ({name}) and --all were given.", hint="Give one of them.")
    names = [one.endpoint.name for one in serve.running()] if is_all else [name or serve.only_name()]
    stopped, failed = [], []
    for one in names:  # one that cannot be stopped keeps none of the others
        try:
            stopped.append(serve.stop(one, timeout_s=timeout))
        except TrtkError as error:  # noqa: PERF203 - a handful of servers
            failed.append(error)
    if stopped or not failed:
        _show(stopped, as_json=as_json)
    for also in failed[1:]:
        output.note(f"Error: {also}")
    if failed:
        raise failed[0]


def _show(stopped: Sequence[Stopped], *, as_json: bool) -> None:
    if as_json:
        output.document({"stopped": [to_json(one) for one in stopped]})
        return
    if not stopped:
        output.text("No server is running.")
    for one in stopped:
        what = "Stopped" if one.was_alive else "Cleaned up after"
        killed = f"; {one.killed} processes had to be killed" if one.killed else ""
        output.text(f"{what} {one.name} in {one.duration_s:.1f} s{killed}.")
