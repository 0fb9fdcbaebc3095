"""`trtk audit`: look at what `trtk serve --openai --audit FILE` recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from toolkit.cli import output

file_argument = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.group(epilog=output.examples("trtk audit verify audit.jsonl", "trtk audit tail audit.jsonl"))
def audit() -> None:
    """Verify and read an audit log.

    Each line is a JSON record with the hash of the one before it, so a record that was changed or taken out shows.
    """


@audit.command(epilog=output.examples("trtk audit verify audit.jsonl", "trtk audit verify audit.jsonl --head HASH"))
@file_argument
@click.option("--head", metavar="HASH", help="A hash that was noted earlier, and that must still be in the log.")
@output.json_option
def verify(file: Path, head: str | None, as_json: bool) -> None:
    """Follow the chain from its beginning; exit with 7 where it is broken."""
    from toolkit import specs
    from toolkit.gateway import chain

    found = chain.verify(file, expected=head)
    if as_json:
        output.document(specs.to_json(found))
        return
    torn = f", {found.torn_lines} torn by a crash or a full disk" if found.torn_lines else ""
    output.text(f"{file}: {found.records} records of {found.requests} requests are as they were written{torn}.")
    output.text(f"Its head is {found.head}")
    output.note("Keep the head elsewhere: only with --head does a cut at the end of the file show.")


@audit.command(epilog=output.examples("trtk audit tail audit.jsonl", "trtk audit tail audit.jsonl --lines 50 --json"))
@file_argument
@click.option("--lines", type=click.IntRange(min=1), default=10, show_default=True, help="How many requests.")
@output.json_option
def tail(file: Path, lines: int, as_json: bool) -> None:
    """Show the last requests."""
    from toolkit.gateway import chain

    records = [record for record in chain.last_records(file, lines) if record.get("kind") == "request"]
    if as_json:
        output.document({"requests": records})
        return
    for record in records:
        output.text(_line(record))


def _line(record: dict[str, Any]) -> str:
    tokens = f"{_shown(record['input_tokens'])}>{_shown(record['output_tokens'])}"
    return (
        f"{record['time']}  {record['key_id'] or '-':<8}  {record['model'] or '-':<20}  {record['endpoint']:<15}  "
        f"{record['outcome']:<9}  {record['status']}  {tokens:>11} tokens  {record['duration_ms']:>9.1f} ms"
    )


def _shown(count: int | None) -> str:
    return "-" if count is None else str(count)
