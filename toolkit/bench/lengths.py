"""How long prompts and answers are: always the same, or drawn from a distribution."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UsageError

FORMS = "128, uniform:64,512, normal:512,128 (mean, deviation), lognormal:512,0.6 (median, sigma) or file:LENGTHS"

#: Of a prompt or an answer; no model takes more, and the prompts are made before the clock starts.
MOST_TOKENS = 10_000_000
#: A log-normal tail with more is longer than any number.
MOST_SIGMA = 5.0
SECONDS_FORMS = "2.5, uniform:1,10, normal:5,2 (mean, deviation) or lognormal:5,0.8 (median, sigma)"


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """A distribution of numbers of tokens; what is drawn is a whole number of at least one."""

    kind: str  # fixed, uniform, normal, lognormal, file
    values: tuple[float, ...]  # the distribution's numbers; of a file, the lengths in it

    def draw(self, dice: random.Random) -> int:
        """Return one length."""
        return max(1, round(DRAWS[self.kind](dice, self.values)))

    def draw_seconds(self, dice: random.Random) -> float:
        """Return one time; none is below zero."""
        return max(0.0, DRAWS[self.kind](dice, self.values))

    @property
    def mean(self) -> float:
        """Return the mean, before rounding and the bound of one."""
        return MEANS[self.kind](self.values)

    @property
    def is_fixed(self) -> bool:
        """Whether every length is the same."""
        return self.kind == "fixed"

    @property
    def is_fixed_at_one(self) -> bool:
        """Whether every length is one."""
        return self.is_fixed and self.values == (1,)


Values = tuple[float, ...]
DRAWS: Mapping[str, Callable[[random.Random, Values], float]] = {
    "fixed": lambda _, values: values[0],
    "uniform": lambda dice, values: dice.uniform(values[0], values[1]),
    "normal": lambda dice, values: dice.gauss(values[0], values[1]),
    "lognormal": lambda dice, values: dice.lognormvariate(math.log(values[0]), values[1]),
    "file": lambda dice, values: dice.choice(values),
}
MEANS: Mapping[str, Callable[[Values], float]] = {
    "fixed": lambda values: values[0],
    "uniform": lambda values: (values[0] + values[1]) / 2,
    "normal": lambda values: values[0],
    "lognormal": lambda values: values[0] * math.exp(values[1] ** 2 / 2),
    "file": lambda values: sum(values) / len(values),
}


def parse(text: str) -> Lengths:
    """Read a length or a distribution of lengths.

    >>> parse("lognormal:512,0.6").values
    (512.0, 0.6)
    """
    found = _parsed(text)
    if found is None or not _is_possible(found.kind, found.values):
        raise UsageError(f"{text!r} is no length in tokens.", hint=f"Write {FORMS}.")
    return found


def parse_seconds(text: str) -> Lengths:
    """Read a time in seconds or a distribution of times.

    >>> parse_seconds("0.5").values
    (0.5,)
    """
    found = _parsed(text)
    if found is None or min(found.values) < 0 or not _is_possible_time(found.kind, found.values):
        raise UsageError(f"{text!r} is no time in seconds.", hint=f"Write {SECONDS_FORMS}.")
    return found


def _is_possible_time(kind: str, values: Values) -> bool:
    return kind != "lognormal" or (values[0] > 0 and values[1] <= MOST_SIGMA)


def _parsed(text: str) -> Lengths | None:
    kind, _, rest = text.strip().partition(":") if ":" in text else ("fixed", "", text)
    if kind == "file":
        return Lengths(kind=kind, values=_listed(Path(rest)))
    try:
        values = tuple(float(part) for part in rest.split(","))
    except ValueError:
        values = ()
    wanted = 1 if kind == "fixed" else 2
    is_right = kind in DRAWS and len(values) == wanted and all(map(math.isfinite, values))
    return Lengths(kind=kind, values=values) if is_right else None


def _is_possible(kind: str, values: Values) -> bool:
    if kind == "file":
        return True
    if not 1 <= values[0] <= MOST_TOKENS:
        return False
    if kind == "fixed":
        return values[0].is_integer()
    return (values[0] if kind == "uniform" else 0) <= values[1] <= _most_second(kind)


def _most_second(kind: str) -> float:
    return MOST_SIGMA if kind == "lognormal" else MOST_TOKENS


def _listed(path: Path) -> Values:
    try:
        values = tuple(int(line) for line in path.read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The lengths in {path} cannot be read: {error}.", hint="Write one number of tokens a line."
        ) from error
    if not values or min(values) < 1:
        raise UsageError(f"{path} has no lengths of 1 or more.", hint="Write one number of tokens a line.")
    return tuple(map(float, values))
