"""`trtk stop`: end servers and leave nothing behind."""

from __future__ import annotations

import click

from toolkit.cli import output
from toolkit.errors import UsageError
from toolkit.specs import to_json


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
    stopped = [serve.stop(one, timeout_s=timeout) for one in names]
    if as_json:
        output.document({"stopped": [to_json(one) for one in stopped]})
        return
    if not stopped:
        output.text("No server is running.")
    for one in stopped:
        what = "Stopped" if one.was_alive else "Cleaned up after"
        killed = f"; {one.killed} processes had to be killed" if one.killed else ""
        output.text(f"{what} {one.name} in {one.duration_s:.1f} s{killed}.")
