"""How wrong the planner is on figures that it was not fitted to.

    python benchmarks/planner_accuracy.py                  # every split, and batch 1
    python benchmarks/planner_accuracy.py --worst 20       # and the worst rows
    python benchmarks/planner_accuracy.py --data FILE.csv  # the shipped constants on other figures, same columns
    python benchmarks/planner_accuracy.py --file-alone     # splits of published_throughput.csv alone

Each split leaves one release, card or model size out of the fit and predicts it. Cards are compared within an
architecture; an architecture that is left out whole has only data/priors.toml to stand on and is a table of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import planner_online
import planner_single_stream
from planner_rows import DATA, EXCLUDED, Row, read, read_all, read_unseen
from planner_system import TAIL, System, system_of

from toolkit import speeds
from toolkit.plan import speed
from toolkit.plan.speed.intervals import EIGHTY_PERCENT
from toolkit.plan.speed.rates import architecture_of, release_of
from toolkit.specs import SpeedConstants

PRIORS = DATA / "priors.toml"
SIZES = {
    "Llama-2-7B": "7B",
    "Mistral-7B": "7B",
    "Llama-3-8B": "8B",
    "Llama-3.1-8B": "8B",
    "Llama-2-70B": "70B",
    "Llama-3-70B": "70B",
    "Llama-3.1-70B": "70B",
}
ALIKE = {"7B": "7-8B", "8B": "7-8B"}
#: The middle of what coverage may be.
WANTED_COVERAGE = 0.83


def size_of(row: Row) -> str:
    """Return a model's size as its name says it."""
    return SIZES.get(row.model, row.model)


SPLITS: dict[str, Callable[[Row], str]] = {
    "release": lambda row: row.release,
    "card": lambda row: row.card,
    "size": size_of,
    "size, 7B and 8B together": lambda row: ALIKE.get(size_of(row), size_of(row)),
}
#: The splits whose errors are kept with the constants.
KEPT = ("release", "card", "size")


@dataclass(frozen=True)
class Held:
    """A row that a fit did not see, and what it said."""

    row: Row
    group: str
    log_error: float
    log_sd: float

    @property
    def error(self) -> float:
        return abs(math.expm1(self.log_error))

    @property
    def is_covered(self) -> bool:
        return abs(self.log_error) <= EIGHTY_PERCENT * self.log_sd


def held_out(rows: Sequence[Row], system: System, split: Callable[[Row], str], constants: SpeedConstants) -> list[Held]:
    """Return every row as the fit without its group predicts it, with the doubt of who never saw that group."""
    groups = np.array([split(row) for row in rows])
    found = []
    for group in sorted(set(groups)):
        others = groups != group
        at, _ = system.fit(others)
        said = np.log(system.predicted(at, system.seen(others)) / system.measured)
        known = without(constants, seen=[rows[i] for i in np.flatnonzero(others)])
        found += [Held(rows[i], group, float(said[i]), log_sd_of(rows[i], known)) for i in np.flatnonzero(~others)]
    return found


def without(constants: SpeedConstants, *, seen: Sequence[Row]) -> SpeedConstants:
    """Return the constants with the doubt of who has SEEN these rows alone: that of the priors for other cards."""
    known = {architecture_of(row.setup.gpu, constants).name for row in seen}
    before = {kind.name: kind.log_sd for kind in speeds.read(PRIORS).architectures}
    architectures = tuple(
        kind if kind.name in known else dataclasses.replace(kind, log_sd=before[kind.name])
        for kind in constants.architectures
    )
    return dataclasses.replace(constants, releases=releases_of(seen), architectures=architectures)


def releases_of(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the releases that some rows are of."""
    return tuple(sorted({release_of(row.setup) for row in rows}))


def log_sd_of(row: Row, constants: SpeedConstants) -> float:
    """Return the doubt that the product tells beside its throughput."""
    told = speed.predict(row.setup, row.workload, constants=constants).output_tps
    return math.log(told.high / told.mid) / EIGHTY_PERCENT


def summary(held: Iterable[Held]) -> str:
    """Return a table's cells for some rows."""
    rows = list(held)
    if not rows:
        return f"{'-':>40}"
    errors = sorted(row.error for row in rows)
    p90 = errors[min(len(errors) - 1, int(0.9 * len(errors)))]
    covered = sum(row.is_covered for row in rows) / len(rows)
    return f"{len(rows):5d} {statistics.median(errors):7.1%} {statistics.mean(errors):7.1%} {p90:7.1%} {covered:8.0%}"


def print_split(name: str, held: Sequence[Held]) -> None:
    """Print a split: each group that was left out, and all together."""
    print(f"\nleave one {name} out\n{'':26}{'one GPU: n  median    mean     p90  covered':>40}   several GPUs")
    if name == "card":
        print_groups([row for row in held if _has_sibling(row, held)])
        print("an architecture that no other row shows")
        print_groups([row for row in held if not _has_sibling(row, held)])
    else:
        print_groups(held)


def print_groups(held: Sequence[Held]) -> None:
    for group in [*sorted({row.group for row in held}), None]:
        some = [row for row in held if group in {None, row.group}]
        one, many = ([row for row in some if row.row.is_one_gpu is is_one] for is_one in (True, False))
        print(f"{group or 'all':26}{summary(one)}   {summary(many)}")


def _has_sibling(held: Held, others: Sequence[Held]) -> bool:
    same = {other.group for other in others if other.row.setup.gpu.sm == held.row.setup.gpu.sm}
    return len(same) > 1


def with_doubt(constants: SpeedConstants, rows: Sequence[Row], system: System) -> SpeedConstants:
    """Return the constants with how far releases lie apart, and with the residuals that make intervals of 80 % hold
    WANTED_COVERAGE of held-out rows."""
    count = len(read())
    alone = system_of(rows[:count], speeds.read(PRIORS))
    far = release_sd([held_out(*of, SPLITS["release"], constants) for of in ((rows, system), (rows[:count], alone))])
    constants = dataclasses.replace(constants, log_sd={**constants.log_sd, "release": far})
    by_split = {name: held_out(rows, system, split, constants) for name, split in SPLITS.items()}
    # The same splits of the first tables alone: without later ones, a release is further from all others.
    of_file = [held_out(rows[:count], alone, split, constants) for split in SPLITS.values()]
    log_sd = dict(constants.log_sd)
    for key, is_one in (("residual_one", True), ("residual_many", False)):
        some = [row for held in (*by_split.values(), *of_file) for row in held if row.row.is_one_gpu is is_one]
        # What every row would need besides what the constants explain; the quantile of it covers as many.
        needed = [(row.log_error / EIGHTY_PERCENT) ** 2 - row.log_sd**2 + log_sd[key] ** 2 for row in some]
        log_sd[key] = round(math.sqrt(max(0.0004, sorted(needed)[int(WANTED_COVERAGE * len(needed))])), 4)
    return dataclasses.replace(constants, log_sd=log_sd, errors=_errors({name: by_split[name] for name in KEPT}))


def release_sd(by_release: Iterable[Sequence[Held]]) -> float:
    """Return how far a release's rows lie together, one way or the other, from what all other releases say of them.

    This part of an error is one throw for a whole table: no number of rows averages it out.
    """
    means = []
    for held in by_release:
        for group, is_one in sorted({(row.group, row.row.is_one_gpu) for row in held}):
            means.append(
                statistics.mean(row.log_error for row in held if (row.group, row.row.is_one_gpu) == (group, is_one))
            )
    return round(math.sqrt(statistics.mean(mean**2 for mean in means)), 4)


def _errors(by_split: Mapping[str, Sequence[Held]]) -> dict[str, float]:
    errors: dict[str, float] = {}
    for name, held in by_split.items():
        for key, is_one in (("one", True), ("many", False)):
            some = [
                row.error
                for row in held
                if row.row.is_one_gpu is is_one and (name != "card" or _has_sibling(row, held))
            ]
            errors[f"{name}_{key}_median"] = round(statistics.median(some), 4)
            errors[f"{name}_{key}_mean"] = round(statistics.mean(some), 4)
    return errors


def on_other_figures(rows: Iterable[Row], constants: SpeedConstants) -> list[Held]:
    """Return rows as the shipped constants predict them."""
    found = []
    for row in rows:
        told = speed.predict(row.setup, row.workload, constants=constants).output_tps
        tail = 1.0 + TAIL * min(
            1.0, speed.estimate(row.setup, row.workload, constants=constants).flow.in_flight / row.requests
        )
        error = math.log(told.mid / tail / row.output_tps)
        kind = architecture_of(row.setup.gpu, constants)
        found.append(Held(row, kind.name, error, math.log(told.high / told.mid) / EIGHTY_PERCENT))
    return found


def print_worst(held: Sequence[Held], count: int) -> None:
    for row in sorted(held, key=lambda row: -row.error)[:count]:
        of = row.row
        lengths = f"{of.workload.isl:.0f}/{of.workload.osl:.0f}"
        print(
            f"  {of.release:7} {of.card:16} {of.model:15} tp{of.tp} {of.precision:5} {lengths:12} "
            f"{of.output_tps:9,.0f} tok/s, predicted {math.expm1(row.log_error):+.0%}"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="other figures, with the columns of data/published_throughput.csv")
    parser.add_argument(
        "--file-alone", action="store_true", help="splits of data/published_throughput.csv alone, 0.10 to 0.17"
    )
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="print the N worst rows of each split")
    options = parser.parse_args()
    constants = speeds.constants()
    if options.data:
        held = on_other_figures(read(options.data), constants)
        print(f"{'':26}{'one GPU: n  median    mean     p90  covered':>40}   several GPUs")
        print_groups(held)
        print_worst(held, options.worst)
        return
    for (card, ranks), reason in EXCLUDED.items():
        print(f"left out: {card} with tp {ranks}, {reason}")
    rows = read() if options.file_alone else read_all()
    system = system_of(rows, speeds.read(PRIORS))
    for name, split in SPLITS.items():
        held = held_out(rows, system, split, constants)
        print_split(name, held)
        print_worst(held, options.worst)
    print(f"\nreleases that no fit has seen\n{'':26}{'one GPU: n  median    mean     p90  covered':>40}   several GPUs")
    unseen = on_other_figures(read_unseen(), constants)
    print_groups([dataclasses.replace(row, group=row.row.release) for row in unseen])
    print_worst(unseen, options.worst)
    planner_online.main()
    planner_single_stream.main()


if __name__ == "__main__":
    main()
