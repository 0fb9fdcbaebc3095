"""`trtk chat`: a conversation with what is served."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli import output, talking
from toolkit.errors import UsageError
from toolkit.specs import to_json

if TYPE_CHECKING:
    from toolkit.cli.talking import Partner
    from toolkit.talk import Reply

HELP = """/reset        begin again; what the model was told with --system stays
/save FILE    write the conversation as JSON
/quit         end; so does Ctrl-D
Ctrl-C stops an answer, and the server's work on it."""


@click.command(
    epilog=output.examples(
        'trtk chat --system "Answer in one sentence."',
        "printf 'What is a GPU?\\nAnd a CPU?\\n' | trtk chat --url openai+http://localhost:9000/v1",
    )
)
@talking.options(max_tokens=512)
@click.option("--system", help="What the model is told first.")
@output.json_option
def chat(system: str | None, as_json: bool, **settings: Any) -> None:
    """Talk with what is served, through the model's own chat template.

    On a terminal: line editing, and /help lists what else can be typed. In a pipe each line is a turn. Counts and times
    are said on stderr. An OpenAI endpoint gets the key in $OPENAI_API_KEY.
    """
    if as_json and sys.stdin.isatty():
        raise UsageError("--json is for turns from a pipe.", hint="printf 'Hello\\n' | trtk chat --json")
    conversation = Conversation(talking.partner(settings), settings, system, is_quiet=as_json)
    if sys.stdin.isatty():
        _talk(conversation)
        return
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is no text is said of its line, not of the pipe
    replies = [conversation.say(line.rstrip("\n")) for line in sys.stdin if line.strip()]
    if as_json:
        output.document({"messages": conversation.messages, "replies": [to_json(one) for one in replies]})


class Conversation:
    """The messages so far; each turn sends them all."""

    def __init__(self, whom: Partner, settings: dict[str, Any], system: str | None, *, is_quiet: bool = False) -> None:
        self.messages: list[dict[str, str]] = []
        self._whom = whom
        self._settings = settings
        self._system = system
        self._on_piece: Callable[[str], None] = (lambda _piece: None) if is_quiet else talking.say
        self._is_quiet = is_quiet
        self.reset()

    @property
    def partner(self) -> str:
        """Who answers, and where."""
        return f"{self._whom.model or 'The first model'} at {self._whom.url}"

    def reset(self) -> None:
        """Forget everything but the system message."""
        self.messages = [{"role": "system", "content": self._system}] if self._system else []

    def say(self, text: str) -> Reply:
        """Say one thing and print the answer; what failed is not part of the conversation."""
        from toolkit import talk

        self.messages.append({"role": "user", "content": text})
        question = talking.question(self._settings, self._whom, messages=tuple(self.messages))
        try:
            reply = talk.ask(self._whom.url, question, self._on_piece, timeout_s=self._settings["timeout"])
        except talk.Interrupted as stopped:
            self._keep(stopped.reply)
            raise
        except BaseException:
            self.messages.pop()
            raise
        self._keep(reply)
        return reply

    def _keep(self, reply: Reply) -> None:
        if reply.text:
            self.messages.append({"role": "assistant", "content": reply.text})
        else:
            self.messages.pop()
        if not self._is_quiet:
            talking.end_line(reply.text)
            output.note(f"[{talking.measures(reply)}]")


def _talk(conversation: Conversation) -> None:
    from toolkit import talk

    output.note(f"{conversation.partner}. /help lists what can be typed besides text; Ctrl-D ends.")
    for line in _lines():
        if line.startswith("/"):
            if _is_over(line, conversation):
                return
            continue
        try:
            conversation.say(line)
        except talk.Interrupted:
            output.note("Stopped.")
        except talk.Refused as refused:  # a conversation that is too long, say: the server lives, and so does this
            output.note(f"Error: {refused}\nHint: /reset begins again.")


def _is_over(line: str, conversation: Conversation) -> bool:
    """Do what a line with a slash says; return whether it ends the conversation."""
    word, _, rest = line.partition(" ")
    if word in {"/quit", "/exit"}:
        return True
    if word == "/reset":
        conversation.reset()
        output.note("Begun again.")
    elif word == "/save" and rest.strip():
        _save(Path(rest.strip()).expanduser(), conversation)
    else:
        output.note(HELP if word == "/help" else f"{line} means nothing here.\n{HELP}")
    return False


def _save(path: Path, conversation: Conversation) -> None:
    from toolkit import files
    from toolkit.errors import TrtkError

    if path.exists():
        output.note(f"{path} is there already; give another name.")
        return
    try:
        files.write_json(path, {"messages": conversation.messages})
    except (TrtkError, OSError) as error:
        output.note(f"Error: {error}")
    else:
        output.note(f"Saved to {path}.")


def _lines() -> Iterator[str]:
    """Yield what is typed, until Ctrl-D."""
    ask = _reader()
    while True:
        try:
            line = ask("> ").strip()
        except EOFError:
            return
        except KeyboardInterrupt:  # at the prompt it drops the line
            output.note("")
            continue
        if line:
            yield line


def _reader() -> Callable[[str], str]:
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import InMemoryHistory
    except ModuleNotFoundError:
        import readline  # noqa: F401 - gives input() its line editing

        return input
    session: PromptSession[str] = PromptSession(history=InMemoryHistory())
    return session.prompt
