"""Options of `trtk bench` for conversations, exact prompts and the load tester's own processes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from toolkit.cli import output
from toolkit.cli.serve_options import added

if TYPE_CHECKING:
    from toolkit.specs import ServeSpec

F = TypeVar("F", bound=Callable[..., Any])
TOKENIZER_DIR = re.compile(r'key:\s*"tokenizer_dir"\s*value\s*:?\s*\{\s*string_value:\s*"([^"]+)"')


def load_options(command: F) -> F:
    """Add the options."""
    return added(
        command,
        (
            click.option(
                "--turns", help="Conversations of so many turns: 4, uniform:2,8; each sends what was said before."
            ),
            click.option("--think", help="Seconds between an answer and the next turn: 2, lognormal:5,0.8."),
            click.option(
                "--tokenizer",
                type=click.Path(exists=True, path_type=Path),
                help="The model's tokenizer, for exactly --isl tokens; known for servers of `trtk serve`.",
            ),
            click.option(
                "--processes", type=click.IntRange(1), help="Of the client; default: what the warm-up shows is needed."
            ),
        ),
    )


def fields_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the options say: fields of a profile."""
    from toolkit.bench import lengths
    from toolkit.errors import UsageError

    if options["think"] and not options["turns"]:
        raise UsageError("--think is the time between turns.", hint="Add --turns 4.")
    if options["turns"]:
        lengths.parse(options["turns"])
    if options["think"]:
        lengths.parse_seconds(options["think"])
    return {
        "turns": options["turns"] or "",
        "think_s": options["think"] or "",
        "processes": options["processes"] or 0,
        "tokenizer": tokenizer_from(options),
    }


def tokenizer_from(options: Mapping[str, Any]) -> str:
    """Return the tokenizer that was named, or that of a server which trtk serves; it has to count words well."""
    from toolkit.bench import vocabulary
    from toolkit.cli import reaching
    from toolkit.errors import TrtkError

    if options["tokenizer"]:
        vocabulary.read(options["tokenizer"])
        return str(options["tokenizer"])
    behind = None if options["prompts"] else reaching.endpoint_behind(options["url"])
    found = tokenizer_of(behind.spec) if behind else None
    if found is None:
        return ""
    try:
        vocabulary.read(found)
    except TrtkError as error:
        output.note(f"Prompts are about as long as asked: {error}")
        return ""
    return str(found)


def tokenizer_of(spec: ServeSpec) -> Path | None:
    """Return the tokenizer.json that a server's preprocessing reads, where it is on this machine."""
    from toolkit.bench.vocabulary import TOKENIZER_FILE

    folders = [Path(spec.folder) / "tokenizer"] if spec.folder else []
    config = Path(spec.repository) / "preprocessing" / "config.pbtxt"
    if config.is_file() and (named := TOKENIZER_DIR.search(config.read_text(encoding="utf-8"))):
        folders.append(Path(spec.repository) / named[1])  # relative ones start at the repository
    found = (folder.resolve() / TOKENIZER_FILE for folder in folders)
    return next((file for file in found if file.is_file()), None)
