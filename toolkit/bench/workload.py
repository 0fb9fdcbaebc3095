"""What each request of a run says: its prompt, how much it asks for, and whether its client stays for the answer."""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass

from toolkit.bench import lengths, prompts
from toolkit.bench.vocabulary import Vocabulary
from toolkit.specs import LoadProfile, TraceRow

#: Prompts of so many tokens in all are made before the clock starts: making them later delays what is in flight.
TOKENS_AHEAD = 400_000
#: Of Mooncake's traces: tokens of a block that a hash names.
BLOCK_TOKENS = 512


@dataclass(frozen=True)
class Wish:
    """One request before it has an id, and those that follow it in its conversation."""

    prompt: str
    input_tokens: int  # asked for, with all that was said before; the server may count otherwise
    max_tokens: int
    leaves_after: int = 0  # chunks, after which the client goes away; 0: it stays
    think_s: float = 0.0  # between the answer before and this turn
    later: tuple[Wish, ...] = ()


class Plan:
    """Every request of a run by its number: the same for each process that sends a part of them."""

    def __init__(self, profile: LoadProfile, vocabulary: Vocabulary | None = None, *, added_tokens: int = 0) -> None:
        self.profile = profile
        self.added_tokens = added_tokens  # by the server to each prompt: a template, a beginning
        self._vocabulary = vocabulary
        self._isl = lengths.parse(profile.isl_lengths or str(profile.isl))
        self._osl = lengths.parse(profile.osl_lengths or str(profile.osl))
        self._turns = lengths.parse(profile.turns or "1")
        self._think = lengths.parse_seconds(profile.think_s or "0")
        self._is_drawn = not (self._isl.is_fixed and self._osl.is_fixed) or profile.cancel_share > 0
        self._shared = self._text(-1, round(profile.shared_prefix * self._isl.mean)) if profile.shared_prefix else ""
        self._ahead: list[Wish] = []

    def prepare(self) -> None:
        """Make the requests that can be expected."""
        count = math.ceil((self.profile.requests or expected(self.profile)) / self._turns.mean)
        ahead = min(count, max(round(TOKENS_AHEAD / self._mean_tokens()), self.profile.concurrency))
        self._ahead = [self._made(index) for index in range(ahead)]

    def __getitem__(self, index: int) -> Wish:
        return self._ahead[index] if index < len(self._ahead) else self._made(index)

    def _mean_tokens(self) -> float:
        rows = self.profile.trace
        isl = sum(row.input_tokens for row in rows) / len(rows) if rows else self._isl.mean
        return isl * self._turns.mean

    def _made(self, index: int) -> Wish:
        turns = 1 if self._turns.is_fixed_at_one else self._turns.draw(self._dice(index, "turns"))
        first = self._turn(index, 1)
        later, said = [], first.input_tokens + first.max_tokens
        for number in range(2, turns + 1):
            made = self._turn(index, number, before=said)
            later.append(made)
            said = made.input_tokens + made.max_tokens
        return first if not later else Wish(**{**vars(first), "later": tuple(later)})

    def _turn(self, index: int, number: int, *, before: int = 0) -> Wish:
        name = str(index) if number == 1 else f"{index}.{number}"
        # Of each request on its own: the others may be as many as they like.
        dice = self._dice(name, "lengths") if self._is_drawn else NO_DICE
        row = self.profile.trace[index % len(self.profile.trace)] if self.profile.trace else None
        input_tokens = row.input_tokens if row else self._isl.draw(dice)
        output_tokens = row.output_tokens if row else self._osl.draw(dice)
        leaves = self._is_drawn and dice.random() < self.profile.cancel_share
        return Wish(
            prompt=self._prompt(row, index, number, input_tokens),
            input_tokens=before + input_tokens,
            max_tokens=output_tokens,
            leaves_after=dice.randint(1, max(1, output_tokens - 1)) if leaves else 0,
            think_s=self._think.draw_seconds(self._dice(name, "think")) if number > 1 else 0.0,
        )

    def _dice(self, name: int | str, what: str) -> random.Random:
        return random.Random(f"{self.profile.seed}/{name}/{what}")

    def _prompt(self, row: TraceRow | None, index: int, number: int, tokens: int) -> str:
        given = self.profile.prompts
        if row is not None and row.prompt:
            return row.prompt
        if row is not None and row.blocks:
            return self._of_blocks(row)
        if given:
            return given[(index + number - 1) % len(given)]
        tokens = max(1, tokens - self.added_tokens)
        if number > 1:
            return self._text(f"{index}.{number}", tokens)
        return self._after_shared(index, tokens) if self._shared else self._text(index, tokens)

    def _after_shared(self, index: int, tokens: int) -> str:
        common = round(self.profile.shared_prefix * self._isl.mean)
        if tokens > common:
            return f"{self._shared} {self._text(index, tokens - common, is_continued=True)}"
        return self._text(-1, tokens) if self._vocabulary else " ".join(self._shared.split()[:tokens])

    def _of_blocks(self, row: TraceRow) -> str:
        """Return a prompt whose blocks are the same text wherever the trace names the same hash."""
        left = row.input_tokens - self.added_tokens
        pieces: list[str] = []
        for block in row.blocks:
            if left <= 0:
                break
            pieces.append(self._text(-2 - block, min(BLOCK_TOKENS, left), is_continued=bool(pieces)))
            left -= BLOCK_TOKENS
        return " ".join(pieces)

    def _text(self, index: int | str, tokens: int, *, is_continued: bool = False) -> str:
        make = prompts.made
        if self._vocabulary:
            make = functools.partial(self._vocabulary.made, is_continued=is_continued)
        return make(seed=self.profile.seed, index=index, tokens=tokens)


#: Where nothing is drawn.
NO_DICE = random.Random(0)


def expected(profile: LoadProfile) -> float:
    """Return how many requests a run of some length will send, about."""
    length_s = profile.duration_s or 0.0
    if profile.trace:
        return len(profile.trace)
    rates = [(stage.start_rps + stage.end_rps) / 2 * (stage.duration_s or length_s) for stage in profile.stages]
    return sum(rates) if rates else profile.concurrency * 64
