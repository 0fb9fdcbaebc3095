"""What each request of a run says: its prompt, how much it asks for, and whether its client stays for the answer."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from toolkit.bench import lengths, prompts
from toolkit.specs import LoadProfile, TraceRow

#: Prompts of so many tokens in all are made before the clock starts: making them later delays what is in flight.
TOKENS_AHEAD = 400_000
#: Of Mooncake's traces: tokens of a block that a hash names.
BLOCK_TOKENS = 512


@dataclass(frozen=True)
class Wish:
    """One request before it has an id."""

    prompt: str
    input_tokens: int  # asked for; the server may count otherwise
    max_tokens: int
    leaves_after: int = 0  # chunks, after which the client goes away; 0: it stays


def wishes(profile: LoadProfile) -> Iterator[Wish]:
    """Yield the requests of a run: those that can be expected are made before this returns, the others as needed."""
    count = profile.requests or math.ceil(expected(profile))
    ahead = min(count, max(round(TOKENS_AHEAD / _mean_isl(profile)), profile.concurrency))
    made = _made(profile)
    return itertools.chain(list(itertools.islice(made, ahead)), made)


def expected(profile: LoadProfile) -> float:
    """Return how many requests a run of some length will send, about."""
    length_s = profile.duration_s or 0.0
    if profile.trace:
        return len(profile.trace)
    rates = [(stage.start_rps + stage.end_rps) / 2 * (stage.duration_s or length_s) for stage in profile.stages]
    return sum(rates) if rates else profile.concurrency * 64


def _mean_isl(profile: LoadProfile) -> float:
    if profile.trace:
        return sum(row.input_tokens for row in profile.trace) / len(profile.trace)
    return lengths.parse(profile.isl_lengths).mean if profile.isl_lengths else profile.isl


def _made(profile: LoadProfile) -> Iterator[Wish]:
    isl = lengths.parse(profile.isl_lengths or str(profile.isl))
    osl = lengths.parse(profile.osl_lengths or str(profile.osl))
    shared = prompts.made(seed=profile.seed, index=-1, tokens=round(profile.shared_prefix * isl.mean))
    is_drawn = not (isl.is_fixed and osl.is_fixed) or profile.cancel_share > 0
    dice = random.Random(0)
    for index in itertools.count():
        if is_drawn:  # of each request on its own: the others may be as many as they like
            dice = random.Random(f"{profile.seed}/{index}/lengths")
        row = profile.trace[index % len(profile.trace)] if profile.trace else None
        input_tokens = row.input_tokens if row else isl.draw(dice)
        output_tokens = row.output_tokens if row else osl.draw(dice)
        leaves = is_drawn and dice.random() < profile.cancel_share
        yield Wish(
            prompt=_prompt(profile, row, index, input_tokens, shared=shared),
            input_tokens=input_tokens,
            max_tokens=output_tokens,
            leaves_after=dice.randint(1, max(1, output_tokens - 1)) if leaves else 0,
        )


def _prompt(profile: LoadProfile, row: TraceRow | None, index: int, tokens: int, *, shared: str) -> str:
    if row is not None and row.prompt:
        return row.prompt
    if row is not None and row.blocks:
        return _of_blocks(profile.seed, row)
    if profile.prompts:
        return profile.prompts[index % len(profile.prompts)]
    if not profile.shared_prefix:
        return prompts.made(seed=profile.seed, index=index, tokens=tokens)
    common = len(shared.replace(".", " .").split())
    if tokens <= common:
        return " ".join(shared.split()[:tokens])
    return f"{shared} {prompts.made(seed=profile.seed, index=index, tokens=tokens - common)}"


def _of_blocks(seed: int, row: TraceRow) -> str:
    """Return a prompt whose blocks are the same text wherever the trace names the same hash."""
    pieces = []
    for number, block in enumerate(row.blocks):
        left = row.input_tokens - number * BLOCK_TOKENS
        if left <= 0:
            break
        pieces.append(prompts.made(seed=seed, index=-2 - block, tokens=min(BLOCK_TOKENS, left)))
    return " ".join(pieces)
