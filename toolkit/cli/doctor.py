"""`trtk doctor`: what this machine can do, and what to install."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit.cli import output
from toolkit.specs import to_json

if TYPE_CHECKING:
    from toolkit.machine import Check, Facts

EPILOG = output.examples(
    "trtk doctor",
    "trtk doctor --gpu a4500 --json",
    "trtk doctor --image nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3",
)
MARKS = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}


@click.command(epilog=EPILOG)
@click.option("--gpu", metavar="NAME", help="Card to look for, or `cpu`; the local card where it is left out.")
@click.option("--release", default="auto", show_default=True, metavar="TAG", help="Triton release; `trtk releases`.")
@click.option(
    "--image",
    metavar="NAME|FOLDER",
    help="Instead: hold an image, or the folder that is its root, against what trtk knows about its release.",
)
@output.json_option
def doctor(gpu: str | None, release: str, image: str | None, as_json: bool) -> None:
    """Look at this machine: driver, GPUs, Docker, disk, memory, ports, packages; each line with what to do.

    Exit code 4 when something is missing that building for --gpu and serving it here cannot do without. Nothing is
    started, changed or downloaded, and no token is shown.

    With --image: tensor names, parameter keys and `trtllm-build --help` of the image, asked for in a container without
    a network; it is pulled where it is not there.
    """
    if image:
        _probe(image, release, as_json=as_json)
        return
    from toolkit import gpus, machine, releases
    from toolkit.cli.local_gpu import choose
    from toolkit.errors import MissingError

    wanted = releases.get(release)
    asked = gpus.get(gpu) if gpu else None
    facts = look()
    target = asked or gpus.get(choose(facts.nvml)[0])
    checks = machine.judge(facts, gpu=target, release=wanted)
    missing = [check for check in checks if check.status == machine.FAIL]
    if as_json:
        lines = [to_json(check) for check in checks]
        output.document({"gpu": target.name, "release": wanted.name, "is_ready": not missing, "checks": lines})
    else:
        _show(checks, f"{target.title}, release {wanted.name}")
    if missing:
        count = "One thing is" if len(missing) == 1 else f"{len(missing)} things are"
        names = ", ".join(check.name for check in missing)
        raise MissingError(f"{count} missing for {target.title}: {names}.", hint=missing[0].hint)


def _probe(image: str, release: str, *, as_json: bool) -> None:
    from toolkit.cli import probing
    from toolkit.errors import MissingError
    from toolkit.machine import FAIL

    with output.progress() as progress:
        contents = probing.contents_of(image, progress=progress)
    wanted = probing.release_of(image, contents, asked=release)
    checks = probing.compare(contents, wanted)
    differing = [check for check in checks if check.status == FAIL]
    if as_json:
        lines = [to_json(check) for check in checks]
        output.document({"image": image, "release": wanted.name, "is_known": not differing, "checks": lines})
    else:
        _show(checks, f"{image}, held against release {wanted.name}")
    if differing:
        names = ", ".join(check.name for check in differing)
        raise MissingError(f"{image} is not what trtk knows as {wanted.name}: {names}.", hint=differing[0].hint)


def look() -> Facts:
    """Return what this machine has, with the folders that trtk and Docker write to."""
    from toolkit import machine, workspace

    return machine.look_around((Path(), workspace.cache_dir()))


def _show(checks: list[Check], title: str) -> None:
    output.table(
        title,
        ["", "what", "found", "what to do"],
        [(MARKS[check.status], check.name, check.found, check.hint) for check in checks],
    )
