"""Options of `trtk build` for ranks, and for what is compiled into an engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FLOWS = ("auto", "engine", "llmapi", "openvino")
SPECULATIVE = ("draft_tokens_external", "lookahead_decoding", "medusa", "eagle")


def pairs(
    ctx: click.Context,  # noqa: ARG001 - the signature of a callback
    param: click.Parameter,
    values: tuple[str, ...],
) -> tuple[tuple[str, str], ...]:
    """Split NAME=VALUE at the first =; dashes in front of the name, and inside it, are forgiven."""
    found = []
    for value in values:
        name, _, text = value.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not name:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE.", param=param)
        found.append((name, text.strip()))
    return tuple(found)


def engine_options(command: F) -> F:
    """Add the options that say how a model is divided, and what an engine is compiled with."""
    for option in reversed(
        (
            click.option(
                "--tp", type=click.IntRange(min=1), default=1, help="Ranks, one GPU each, that share a layer."
            ),
            click.option("--pp", type=click.IntRange(min=1), default=1, help="Ranks that take the layers in turn."),
            click.option("--ep", type=click.IntRange(min=1), default=1, help="Of --tp, ranks that share out experts."),
            click.option("--workers", type=click.IntRange(min=1), help="Ranks compiled at a time; all."),
            click.option("--speculative", type=click.Choice(SPECULATIVE), help="Several tokens in one step."),
            click.option(
                "--max-draft-len", type=click.IntRange(min=1, max=256), help="Of --speculative: tokens ahead."
            ),
            click.option(
                "--lora-dir",
                type=click.Path(path_type=Path, file_okay=False),
                multiple=True,
                help="A LoRA adapter to build for; may be repeated.",
            ),
            click.option("--max-lora-rank", type=click.IntRange(min=1), help="Of adapters; the largest one's."),
            click.option(
                "--gather-logits",
                type=click.Choice(["context", "generation", "all"]),
                help="Logits that requests may ask for.",
            ),
            click.option(
                "--set-flag",
                callback=pairs,
                multiple=True,
                metavar="NAME=VALUE",
                help="A flag of trtllm-build, or a key of the LLM API's YAML; may be repeated.",
            ),
        )
    ):
        command = option(command)
    return command
