"""`trtk ps`: the models of a pool, and what it did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from toolkit.cli import output
from toolkit.cli.pool_options import folder_of

MIB = 1 << 20
COLUMNS = ("model", "state", "MiB", "charged", "KV", "busy", "waits", "used", "loads", "cold")
RIGHT = COLUMNS[2:]


@click.command(epilog=output.examples("trtk ps", "trtk ps pool --journal"))
@click.argument("name", required=False)
@click.option("--journal", is_flag=True, help="Print every load and unload, with its reason, instead.")
@output.json_option
def ps(name: str | None, journal: bool, as_json: bool) -> None:
    """Show a pool's models: what each takes and does.

    MiB is what its processes take now, `charged` what the pool counts for it at its largest, KV its cache in tokens;
    busy and waits are requests, `used` how long ago the last one came, `cold` how long its last load took; * is pinned.

    NAME is what `trtk serve --memory` was given or chose; without it, the one pool that runs.
    """
    chosen = name or _only_pool()
    folder = folder_of(chosen)
    if journal:
        _show_journal(chosen, folder / "journal.jsonl", as_json=as_json)
        return
    found = _now(chosen, folder / "snapshot.json")
    if as_json:
        output.document({"name": chosen} | found)
        return
    held, limit = found["held_bytes"] // MIB, found["limit_bytes"] // MIB
    away = "" if found["is_running"] else "; it does not run, this is how it was last"
    output.table(f"{chosen}: {held} of {limit} MiB{away}", COLUMNS, [_row(one) for one in found["models"]], right=RIGHT)
    for one in found["models"]:
        if one["problem"]:
            output.text(f"{one['name']}: {one['problem']}")


def _only_pool() -> str:
    from toolkit import serve
    from toolkit.errors import UsageError

    names = [one.endpoint.name for one in serve.running() if one.endpoint.spec.is_pool]
    if len(names) != 1:
        found = f"There are {len(names)} pools: {', '.join(names)}." if names else "No pool is running."
        raise UsageError(found, hint="Name one." if names else "trtk serve engines/a engines/b --memory 12GiB")
    return names[0]


def _now(name: str, path: Path) -> dict[str, Any]:
    from toolkit import serve
    from toolkit.errors import UsageError
    from toolkit.pool import snapshot

    found = snapshot.read(path)
    if found is None:
        raise UsageError(f"There is no pool named {name!r}.", hint="`trtk status` lists the servers.")
    is_running = any(one.endpoint.name == name and one.state != "dead" for one in serve.running())
    return found | {"is_running": is_running}


def _row(one: Mapping[str, Any]) -> tuple[Any, ...]:
    ago = f"{max(0, round(time.time() - one['last_used_at']))}s" if one["last_used_at"] else "-"
    return (
        one["name"] + ("*" if one["is_pinned"] else ""),
        one["state"],
        one["measured_bytes"] // MIB,
        one["size_bytes"] // MIB,
        one["kv_tokens"],
        one["in_flight"],
        one["waiting"],
        ago,
        one["loads"],
        f"{one['cold_start_s']:.1f}s" if one["cold_start_s"] else "-",
    )


def _show_journal(name: str, path: Path, *, as_json: bool) -> None:
    from toolkit.errors import UsageError
    from toolkit.pool import journal

    if not path.is_file():
        raise UsageError(f"There is no pool named {name!r}.", hint="`trtk status` lists the servers.")
    events = list(journal.read(path))
    if as_json:
        output.document({"name": name, "events": events, "states": journal.replayed(path)})
        return
    for event in events:
        output.text(journal.line(event))
