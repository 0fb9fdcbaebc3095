"""`trtk repo`: the Triton repository of what `build` made, alone; or the checks of any repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from toolkit.cli import output
from toolkit.cli.repository_options import repository_options

EPILOG = output.examples(
    "trtk repo engines/llama-a4500-int4 --max-queue-size 64 --dry-run",
    "trtk repo engines/llama-a4500-int4 --set tensorrt_llm.kv_cache_host_memory_bytes=8589934592",
    "trtk repo --check model_repository/llama --mount engines/llama:/engines/llama",
    "trtk repo --parameters --release 26.07",
)


def mounts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Split HOST:CONTAINER."""
    del ctx
    found = []
    for value in values:
        here, _, there = value.rpartition(":")
        if not here or not there.startswith("/"):
            raise click.BadParameter(f"{value!r} is not HOST:CONTAINER with an absolute CONTAINER.", param=param)
        found.append((str(Path(here).absolute()), there.rstrip("/") or "/"))
    return tuple(found)


@click.command(epilog=EPILOG)
@click.argument("engine", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), help="Folder; model_repository/NAME.")
@click.option("--check", "checked", type=click.Path(path_type=Path), metavar="PATH", help="Check that repository.")
@click.option("--parameters", "is_listing", is_flag=True, help="List the parameters that a release knows.")
@click.option("--release", metavar="TAG", help="Of --check and --parameters; the repository's own, else the default.")
@click.option(
    "--mount", "mounted", callback=mounts, multiple=True, metavar="HOST:CONTAINER", help="How the server sees folders."
)
@click.option("--engine-dir", metavar="PATH", help="Where the server finds the engine.")
@click.option("--tokenizer-dir", metavar="PATH", help="Where the server finds the tokenizer.")
@click.option(
    "--draft",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A built engine that proposes tokens.",
)
@click.option("--http-port", type=click.IntRange(1, 65535), help="Of --check: HTTP port of the server.")
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="Of --check: gRPC port of the server.")
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Of --check: port of its metrics.")
@repository_options
@click.option("--force", is_flag=True, help="Write over files that were edited by hand.")
@click.option("--dry-run", is_flag=True, help="Show what would change, line by line, and write nothing.")
@output.json_option
def repo(
    engine: Path | None,
    folder: Path | None,
    checked: Path | None,
    is_listing: bool,
    release: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the Triton repository of ENGINE, a folder that `trtk build` made, or check any repository.

    Settings are those of the build with what is given here over them. A repository appears whole or not at all, has no
    problem that --check would find, and never takes the place of files that were edited by hand.
    """
    from toolkit.cli import repository_checks, repository_writing
    from toolkit.errors import UsageError

    asked = [name for name, given in (("ENGINE", engine), ("--check", checked), ("--parameters", is_listing)) if given]
    if len(asked) != 1:
        named = " and ".join(asked) or "none"
        raise UsageError(
            f"`trtk repo` takes one of ENGINE, --check and --parameters; {named} was given.",
            hint="Try: trtk repo engines/NAME; `ls engines` lists what was built.",
        )
    if is_listing:
        repository_checks.show_parameters(release, as_json=as_json)
    elif checked:
        repository_checks.run(checked, release, options, as_json=as_json)
    else:
        assert engine
        repository_writing.run(engine, folder, release, options, as_json=as_json)
