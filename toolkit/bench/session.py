"""What the load tester asks of a protocol and of a load shape; each entry of protocols/ and arrivals/ answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol as Interface

from toolkit.bench.answer import Answer
from toolkit.specs import LoadProfile


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What was said before in a conversation: a question and its answer."""

    prompt: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request to send."""

    request_id: str
    prompt: str
    max_tokens: int
    seed: int
    input_tokens: int = 0  # asked for
    history: tuple[Turn, ...] = ()
    turn: int = 1

    @property
    def whole_prompt(self) -> str:
        """The prompt after all that was said before, for servers that take one text."""
        return "\n".join([*(text for turn in self.history for text in (turn.prompt, turn.answer)), self.prompt])


@dataclass(frozen=True, kw_only=True)
class ServerFacts:
    """What the server says about itself and about the model under test."""

    name: str
    version: str
    model: str
    model_version: str
    platform: str
    has_output_count: bool  # it counts output tokens itself
    has_input_count: bool
    has_eos_control: bool  # it can be told to generate exactly max_tokens


@dataclass(frozen=True, kw_only=True)
class ModelCounts:
    """One model's statistics since the server started."""

    requests: int
    failures: int
    executions: int
    queue_s: float
    compute_input_s: float
    compute_infer_s: float
    compute_output_s: float

    def since(self, earlier: ModelCounts) -> ModelCounts:
        """Return what was added after EARLIER."""
        names = self.__dataclass_fields__
        return ModelCounts(**{name: getattr(self, name) - getattr(earlier, name) for name in names})


class Session(Interface):
    """An open connection to one model of one server."""

    facts: ServerFacts

    async def send(self, ask: Ask, answer: Answer) -> None:
        """Send one request and feed what comes back into ANSWER; raise SendFailed when it cannot be completed."""

    async def statistics(self) -> dict[str, ModelCounts] | None:
        """Return the server's counts by model, or None where it has none."""

    async def close(self) -> None:
        """Close every connection."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A way to talk to a server, chosen by the scheme of the URL."""

    name: str
    title: str
    schemes: tuple[str, ...]
    connect: Callable[[LoadProfile], Awaitable[Session]]


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A load shape: when each request is due, in seconds since the start; None is "as soon as a slot is free"."""

    name: str
    title: str
    due_times: Callable[[LoadProfile], Iterator[float | None]]
