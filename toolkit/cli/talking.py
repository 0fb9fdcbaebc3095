"""What `trtk infer` and `trtk chat` have in common: whom they ask, how, and what they say about an answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from toolkit.cli import output, reaching
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from toolkit.talk import Question, Reply

F = TypeVar("F", bound=Callable[..., Any])
#: Control characters, but for tab and line break, as the pictures that Unicode has of them.
SHOWN = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | dict.fromkeys(
    (127, *range(128, 160)), 0x2421
)
OPENAI = "openai+"
DEFAULT_MODEL = "ensemble"
#: What the tensors of a request hold.
MOST_INT32, MOST_UINT64, MOST_FP32 = 2**31 - 1, 2**64 - 1, 3.4e38


@dataclass(frozen=True, kw_only=True)
class Partner:
    """Whom to ask."""

    url: str
    model: str


def options(max_tokens: int) -> Callable[[F], F]:
    """Add the options of a request; MAX_TOKENS is the default."""
    given = (
        click.option("--name", help="The server's name in `trtk status`; needed where several are ready."),
        click.option("--url", help="grpc://host:port, http://host:port or openai+http://host:port/v1."),
        click.option("--model", help=f"The model's name on the server.  [default: {DEFAULT_MODEL}]"),
        click.option(
            "--max-tokens",
            type=click.IntRange(1, MOST_INT32),
            default=max_tokens,
            show_default=True,
            help="Most tokens to make.",
        ),
        click.option(
            "--temperature", type=click.FloatRange(0, MOST_FP32), help="0 takes the likeliest token each time."
        ),
        click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Take from this share of likelihood."),
        click.option("--top-k", type=click.IntRange(1, MOST_INT32), help="Take from so many tokens."),
        click.option("--seed", type=click.IntRange(0, MOST_UINT64), help="The same seed makes the same answer."),
        click.option("--stop", multiple=True, metavar="TEXT", help="End the answer at this text; can be repeated."),
        click.option(
            "--timeout", type=click.FloatRange(0, min_open=True), default=300.0, show_default=True, help="Seconds."
        ),
    )

    def add(command: F) -> F:
        for option in reversed(given):
            command = option(command)
        return command

    return add


def partner(settings: Mapping[str, Any]) -> Partner:
    """Return whom the options mean."""
    from toolkit import talk

    url, name = settings["url"], settings["name"]
    if url and name:
        raise UsageError(f"Both --name {name} and --url {url} were given.", hint="Give one of them.")
    if url:
        talk.check(url)
    else:
        url = reaching.url_to_ask(reaching.ready_server(name, choose="--name"))
    # An OpenAI endpoint says which models it has; the first is meant where none is named.
    return Partner(url=url, model=settings["model"] or ("" if url.startswith(OPENAI) else DEFAULT_MODEL))


def question(settings: Mapping[str, Any], whom: Partner, **said: Any) -> Question:
    """Return a request with the options' settings."""
    from toolkit import talk

    need_text(said.get("prompt", ""), *(each["content"] for each in said.get("messages", ())), *settings["stop"])
    same = {name: settings[name] for name in ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop")}
    return talk.Question(request_id=talk.new_id(), model=whom.model, **same, **said)


def need_text(*texts: str) -> None:
    """Raise where a command line or a pipe gave bytes that are no text: Python keeps them as halves of characters."""
    for text in texts:
        if any("\ud800" <= char <= "\udfff" for char in text):
            shown = text.encode(errors="replace").decode()
            raise UsageError(f"{shown!r} is not UTF-8.", hint="Give it in that encoding.")


def measures(reply: Reply) -> str:
    """Return an answer's counts and times as one line."""
    asked = "" if reply.input_tokens is None else f"{counted(reply.input_tokens, 'token')} in, "
    unit = "token" if reply.token_count_source == "server" else "piece"
    parts = [f"{asked}{counted(reply.output_tokens, unit)} out"]
    parts += [] if reply.ttft_ms is None else [f"first after {reply.ttft_ms:,.0f} ms"]
    parts += [] if not reply.tpot_ms else [f"then {reply.tpot_ms:,.1f} ms each ({1000 / reply.tpot_ms:,.0f}/s)"]
    parts += [] if not reply.finish_reason else [f"finish: {reply.finish_reason}"]
    return ", ".join(parts)


def counted(count: int, unit: str) -> str:
    """Return a count with its unit."""
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def say(piece: str) -> None:
    """Print a piece of an answer at once: as it is, but on a terminal without what would command the terminal."""
    sys.stdout.write(piece.translate(SHOWN) if sys.stdout.isatty() else piece)
    sys.stdout.flush()


def end_line(text: str) -> None:
    """End the line that an answer left open."""
    if text and not text.endswith("\n"):
        output.text()
