"""`trtk keys`: who may use an OpenAI-compatible endpoint."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.cli import output

file_option = click.option(
    "--file", "path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Key file; the user's own."
)


@click.group(epilog=output.examples("trtk keys add team-search", "trtk keys rm team-search"))
def keys() -> None:
    """Make, list and take back API keys for `trtk serve --openai --api-keys FILE`.

    The file keeps hashes; a running server sees a change with its next request.
    """


@keys.command(epilog=output.examples("trtk keys add team-search", "trtk keys add laptop --file keys.json"))
@click.argument("name")
@file_option
@output.json_option
def add(name: str, path: Path | None, as_json: bool) -> None:
    """Make a key and print it, this once."""
    from toolkit.gateway import keys as kept

    file = _file(path)
    key = kept.add(file, name)
    if as_json:
        output.document({"name": name, "key": key, "file": str(file)})
        return
    output.text(key)
    output.note(f"{file} keeps only its hash: write the key down now. Serve with --api-keys {file}.")


@keys.command(epilog=output.examples("trtk keys ls", "trtk keys ls --json"))
@file_option
@output.json_option
def ls(path: Path | None, as_json: bool) -> None:
    """List the keys of a file, without what opens anything."""
    from toolkit.gateway import keys as kept

    file = _file(path)
    found = kept.read(file)
    if as_json:
        output.document(
            {"file": str(file), "keys": [{"id": k.id, "name": k.name, "created": k.created} for k in found]}
        )
        return
    for key in found:
        output.text(f"{key.id}  {key.created}  {key.name}")
    if not found:
        output.text(f"{file} holds no key.")


@keys.command(epilog=output.examples("trtk keys rm team-search", "trtk keys rm 3f9a0c11"))
@click.argument("name")
@file_option
@output.json_option
def rm(name: str, path: Path | None, as_json: bool) -> None:
    """Take a key back, by its name or id."""
    from toolkit.gateway import keys as kept

    file = _file(path)
    removed = kept.remove(file, name)
    if as_json:
        output.document({"file": str(file), "removed": {"id": removed.id, "name": removed.name}})
        return
    output.note(f"The key {removed.name} ({removed.id}) opens nothing any more.")


def _file(path: Path | None) -> Path:
    from toolkit import workspace

    return (path or workspace.state_dir() / "api-keys.json").absolute()
