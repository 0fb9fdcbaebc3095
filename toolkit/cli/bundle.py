"""`trtk bundle`: a built folder as one file."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.cli import output

EPILOG = output.examples(
    "trtk bundle engines/demo-a4500-int4 -o demo-a4500.tar.zst",
    "trtk bundle engines/llama-3.1-8b-instruct-l4-fp8 --json",
)


@click.command(epilog=EPILOG)
@click.argument("engine", type=click.Path(path_type=Path))
@click.option("-o", "--output", "archive", type=click.Path(path_type=Path), help="File to write; ENGINE.tar.zst.")
@output.json_option
def bundle(engine: Path, archive: Path | None, as_json: bool) -> None:
    """Pack ENGINE, a folder that `trtk build` made, into one .tar.zst.

    Its files are compared with the manifest first. The same build gives the same bytes, wherever and whenever it was
    made. On the target: tar --zstd -xf FILE, then its start.py inside the serving image.
    """
    from toolkit.engine import bundle_archive as archives
    from toolkit.errors import UsageError
    from toolkit.files import sha256_file

    target = archive or Path(f"{engine.absolute().name}{archives.SUFFIX}")
    if not target.name.endswith(archives.SUFFIX):
        raise UsageError(f"{target} is no {archives.SUFFIX} file.", hint=f"-o {target.name}{archives.SUFFIX}")
    if target.is_dir():
        raise UsageError(f"{target} is a folder, not a file.", hint=f"-o {target / target.name}")
    with output.progress() as progress:
        manifest = archives.pack(engine, target, progress=progress)
    digest = sha256_file(target)
    if as_json:
        output.document(
            {
                "bundle": str(target),
                "bytes": target.stat().st_size,
                "sha256": digest,
                "folder": manifest.name,
                "build_id": manifest.build_id,
                "content_id": archives.content_id(manifest.files),
                "kind": manifest.kind,
                "is_deferred": manifest.is_deferred,
            }
        )
        return
    output.text(f"{target}: {target.stat().st_size / 1e6:.1f} MB, sha256 {digest}.")
    output.text(f"On the target: tar --zstd -xf {target.name}, which makes {manifest.name}/.")
