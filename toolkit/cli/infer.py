"""`trtk infer`: one request to a server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from toolkit.cli import output, talking
from toolkit.errors import UsageError
from toolkit.specs import to_json


@click.command(
    epilog=output.examples(
        'trtk infer "The capital of France is" --max-tokens 16',
        "trtk infer @question.txt --chat --url http://localhost:8000 --json",
    )
)
@click.argument("prompt", required=False)
@talking.options(max_tokens=128)
@click.option("--chat", "is_chat", is_flag=True, help="Send it as a message: the model's own chat template is used.")
@click.option("--system", help="With --chat: what the model is told first.")
@click.option("--stream/--no-stream", default=True, show_default=True, help="Print the text as it comes, or whole.")
@output.json_option
@click.pass_context
def infer(
    ctx: click.Context,
    /,
    prompt: str | None,
    is_chat: bool,
    system: str | None,
    stream: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Ask a server one thing.

    PROMPT is the text, @FILE reads it from a file; without it, it is read from standard input; of those two, a last
    line break is left out. The text goes to the model as it is, unless --chat is given. Counts and times are said on
    stderr. An OpenAI endpoint gets the key in $OPENAI_API_KEY.
    """
    from toolkit import talk

    text = prompt_text(prompt)
    if system and not is_chat:
        raise UsageError("--system is for a chat.", hint="Add --chat.")
    whom = talking.partner(settings)
    said: dict[str, Any] = {"messages": messages(text, system)} if is_chat else {"prompt": text}
    question = talking.question(settings, whom, is_streaming=stream, **said)
    on_piece: Callable[[str], None] = _unsaid if as_json else talking.say
    try:
        reply = talk.ask(whom.url, question, on_piece, timeout_s=settings["timeout"])
    except talk.Interrupted as stopped:
        talking.end_line("" if as_json else stopped.reply.text)
        output.note("Interrupted; the server was told to stop.")
        ctx.exit(130)
    if as_json:
        output.document({**to_json(reply), "url": whom.url})
        return
    talking.end_line(reply.text)
    output.note(talking.measures(reply))


def messages(text: str, system: str | None) -> tuple[dict[str, str], ...]:
    """Return a conversation's first messages."""
    first = ({"role": "system", "content": system},) if system else ()
    return (*first, {"role": "user", "content": text})


def prompt_text(prompt: str | None) -> str:
    """Return the prompt: as given, from @FILE, or from standard input."""
    if prompt is None:
        if sys.stdin.isatty():
            raise UsageError("There is no prompt.", hint='Give one: trtk infer "The capital of France is"')
        text, where = _decoded(sys.stdin.buffer.read(), "Standard input"), "Standard input"
    elif prompt.startswith("@"):
        where = prompt[1:]
        try:
            text = _decoded(Path(where).read_bytes(), where)
        except OSError as error:
            raise UsageError(
                f"The prompt's file {where} cannot be read: {error.strerror}.",
                hint="A text that begins with @ comes in a pipe.",
            ) from error
    else:
        text, where = prompt, "The prompt"
    if not text:
        raise UsageError(f"{where} is empty.", hint="Give the model something to go on from.")
    return text


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8: {error.reason} at byte {error.start}.") from error


def _unsaid(piece: str) -> None:
    """Keep it for the document."""
