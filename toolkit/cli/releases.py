"""`trtk releases`: what is inside each Triton container."""

from __future__ import annotations

import click

from toolkit.cli import output
from toolkit.specs import Release, to_json

COLUMNS = ("release", "Triton", "TensorRT-LLM", "TensorRT", "CUDA", "flows", "")


@click.command(epilog=output.examples("trtk releases", "trtk releases --json"))
@output.json_option
def releases(as_json: bool) -> None:
    """List the Triton releases with TensorRT-LLM and what is in them, newest first."""
    from toolkit.releases import catalogue

    known = catalogue()
    if as_json:
        output.document({"releases": [to_json(release) for release in known]})
        return
    output.table("Triton releases", COLUMNS, [row(release) for release in known])
    output.text("* default. !: older than the security floor: serve nobody but yourself with it.")


def row(release: Release) -> list[str]:
    """Return a release's cells of the table."""
    marks = f"{'*' if release.is_default else ''}{'' if release.is_security_floor_met else '!'}"
    versions = [release.triton, release.tensorrt_llm, release.tensorrt, release.cuda]
    return [release.name, *versions, " ".join(release.flows), marks]
