"""`trtk status`: the servers that trtk started."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING

import click

from toolkit.cli import output
from toolkit.specs import to_json

if TYPE_CHECKING:
    from toolkit.serve import ServerStatus


@click.command(epilog=output.examples("trtk status", "trtk status --check"))
@click.option("--check", is_flag=True, help="Exit with 6 unless there is a server and every one is ready.")
@output.json_option
def status(as_json: bool, check: bool) -> None:
    """Show the servers that trtk started, and how they are now."""
    from toolkit.serve import running

    found = running()
    if as_json:
        output.document({"servers": [to_json(one) for one in found]})
    elif not found:
        output.text("No server is running. `trtk serve` starts one.")
    for one in () if as_json else found:
        output.text(card(one))
    if check:
        _need_ready(found)


def _need_ready(found: Sequence[ServerStatus]) -> None:
    from toolkit.errors import ServerError

    if not found:
        raise ServerError("No server is running.", hint="`trtk serve` starts one.")
    for one in found:
        if one.state != "ready":
            why = f": {one.problem}" if one.problem else ""
            raise ServerError(
                f"The server {one.endpoint.name!r} is {one.state}{why}.",
                hint=f"`trtk logs {quote(one.endpoint.name)}` shows its log.",
            )


def card(one: ServerStatus) -> str:
    """Return a server's lines."""
    end = one.endpoint
    if one.state == "dead":
        why = f"\n  {one.last_failure}" if one.last_failure else ""  # said by who gave it up
        return (
            f"{end.name}: dead (was pid {end.pid}, started {end.started_at}){why}\n"
            f"  log   {end.log_path}\n  `trtk stop {quote(end.name)}` cleans up after it."
        )
    models = ", ".join(one.models) or "-"
    why = f": {one.problem}" if one.problem else ""
    lines = [
        f"{end.name}: {one.state}{why}" + (f", pid {end.pid}, up {duration(one.uptime_s)}" if one.uptime_s else ""),
        f"  HTTP {end.http_url}  gRPC {end.grpc_url}",
        *(f"  {f'{also.name} {also.url}'.strip()}  {also.state}, pid {also.pid}" for also in one.companions),
        f"  models {models}",
        *([f"  container {one.container}, {end.spec.container.image_digest}"] if one.container else []),
    ]
    if one.last_failure:
        lines.append(f"  started again {one.restarts} {'time' if one.restarts == 1 else 'times'}; {one.last_failure}")
    return "\n".join([*lines, f"  log {end.log_path}"])


def duration(seconds: float) -> str:
    """Return seconds as `42 s`, `3 min 5 s` or `2 h 10 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
