"""What `trtk plan` prints: a bar of the memory, what is expected, what it costs, what else there is."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cli import output, plan_document
from toolkit.specs import Cost, MemoryBudget, Prediction, Range

if TYPE_CHECKING:
    from toolkit.cli.plan_making import Answer, Question
    from toolkit.plan.recommend import Option, Recommendation, Rejected
    from toolkit.plan.sweep import Edge, Point

GIB = 1 << 30
BAR_WIDTH = 60
LINE_WIDTH, LABEL_WIDTH = 80, 10
#: In the order of the bar; each part has a letter of its own, so that it reads without colours.
PARTS = (
    ("weights", "W", "blue"),
    ("activations", "a", "yellow"),
    ("runtime", "r", "magenta"),
    ("kv_cache", "K", "green"),
    ("free", "·", "bright_black"),
)
MOST_REJECTIONS = 12


def show(question: Question, answer: Answer, *, is_explained: bool) -> None:
    """Print one plan."""
    from toolkit.plan import sweep
    from toolkit.plan.recommend import parallel_of

    made, sizing = answer.candidate, answer.candidate.sizing
    ranks = parallel_of(made.sharding)
    where = made.setup.gpu.title + (f", {ranks} on {made.gpus} cards" if made.gpus > 1 else "")
    faults = plan_document.faults(question, answer)
    output.text(f"{title(question.name)}, {made.recipe.name} on {where}: {verdict(question, answer)}")
    for fault in faults:
        labelled("  !", fault)
    bar(sizing.memory, each="on each card" if made.gpus > 1 else "")
    kv, limits = sizing.kv, sizing.limits
    labelled(
        "KV cache",
        f"{kv.max_tokens} tokens = {kv.blocks} blocks of {kv.tokens_per_block}; {kv.bytes_per_token} bytes a "
        f"token, {made.kv_type or '16 bits'}",
    )
    labelled(
        "Limits",
        f"{limits.max_batch_size} requests a batch, {limits.max_num_tokens} tokens a step, "
        f"{limits.max_seq_len} tokens a request",
    )
    labelled(
        "Room",
        f"{sizing.max_concurrency} requests of {sizing.request_tokens} tokens at once, bound by "
        f"{sizing.binding}; alone one of {answer.longest_context}",
    )
    prediction(answer.prediction, question)
    money(plan_document.cost_of(question, answer), answer.option)
    labelled("Cliff", sweep.cliff_of(made).sentence)
    for line in plan_document.warnings(question, answer):
        output.note(f"Note: {line}")
    if is_explained:
        explain(answer)


def verdict(question: Question, answer: Answer) -> str:
    """Return whether it fits, and whether that is enough."""
    if plan_document.misfits(question, answer):
        return "does not fit"
    return "fits, and misses what was asked" if plan_document.misses(question, answer) else "fits"


def bar(memory: MemoryBudget, *, each: str = "") -> None:
    """Print a card's memory as a bar, and its parts in GiB."""
    from rich.text import Text

    sizes = [(name, getattr(memory, name), letter, colour) for name, letter, colour in PARTS]
    drawn = Text("  ")
    for (_, _, letter, colour), width in zip(sizes, widths([size for _, size, _, _ in sizes]), strict=True):
        drawn.append(letter * width, style=colour)
    legend = " ".join(f"{letter} {name.replace('_', ' ')} {size / GIB:.2f}" for name, size, letter, _ in sizes)
    console = output.console(error=False)
    console.print(drawn)
    labelled("", legend, indent=2)
    output.text(f"  of {memory.total / GIB:.2f} GiB that can be used {each}".rstrip())


def widths(sizes: Sequence[int]) -> list[int]:
    """Return the characters of each part: what is there is seen, and all of them together fill the bar."""
    total = max(1, sum(sizes))
    found = [max(1, round(BAR_WIDTH * size / total)) if size else 0 for size in sizes]
    largest = found.index(max(found))
    found[largest] += BAR_WIDTH - sum(found)
    return found


def prediction(found: Prediction, question: Question) -> None:
    """Print times and throughput with their intervals."""
    load = question.workload
    asked = (
        f"{load.concurrency} in flight"
        if load.concurrency
        else f"{load.rate_rps:.3g} requests/s"
        if load.rate_rps
        else "as many as run at once"
    )
    labelled("Load", f"{load.isl:.0f} tokens in, {load.osl:.0f} out, {asked}")
    labelled("TTFT", f"{spread(found.ttft_ms)} ms")
    labelled("TPOT", f"{spread(found.tpot_ms)} ms")
    labelled("Output", f"{spread(found.output_tps)} tokens/s, bound by {found.bound_by}; {found.provenance}")


def money(cost: Cost | None, option: Option | None) -> None:
    """Print what it costs."""
    if cost is None:
        labelled("Cost", "no price is known; --price 0.35EUR/h or --prices FILE gives one")
        return
    offer = cost.offer
    source = f" ({offer.provider}, {offer.kind}, {offer.date})" if offer else ""
    many = f" for {option.gpus} GPUs" if option and option.gpus > 1 else ""
    extras = cost.per_month_with_extras
    said = (
        f"{cost.per_hour:.2f} {cost.currency}/h{many}{source}, {cost.per_month:,.0f} a month; {extras.low:,.0f} to "
        f"{extras.high:,.0f} with the extras that bills have"
    )
    if cost.per_million_at_duty:
        said += f"; {spread(cost.per_million_at_duty)} a million tokens out"
    if cost.duty < 1 and cost.per_million_output_tokens:
        said += f" at {cost.duty:.0%} duty, {spread(cost.per_million_output_tokens)} while it is busy"
    labelled("Cost", said)


def explain(answer: Answer) -> None:
    """Print what each setting would change, and why each is what it is."""
    rows = [
        (
            knob.name,
            knob.change,
            f"{knob.memory_bytes / GIB:+.2f}",
            f"{knob.kv_tokens:+d}",
            str(knob.max_concurrency),
        )
        for knob in answer.knobs
    ]
    output.table(
        "What a change would do",
        ("setting", "change", "GiB", "KV tokens", "at once"),
        rows,
        right=("GiB", "KV tokens", "at once"),
    )
    reasons = [(choice.name, choice.value, choice.reason) for choice in answer.candidate.sizing.choices]
    output.table("Why", ("setting", "value", "reason"), reasons)


def recommended(question: Question, found: Recommendation, quality: dict[str, dict[str, Any]]) -> None:
    """Print the options by cost, the front, what was rejected and the nearest miss."""
    is_load_given = bool(question.workload.rate_rps or question.workload.concurrency)
    columns = ("card", "quant", "ranks", "x", "each", "TTFT", "TPOT", "tok/s", _cost_column(is_load_given), "KL")
    heading = f"{title(question.name)}: what carries the load, cheapest first"
    if found.options:
        output.table(heading, columns, [row(option, quality) for option in found.options[:20]], right=columns[3:])
        currency = question.options["currency"].upper()
        labelled(
            "", f"x: replicas, each with so many requests in flight; ms; {currency} for all GPUs; KL from trtk eval."
        )
        if found.options[0].candidate.setup.gpu.is_cpu:
            labelled("", "This machine's CPU is enough: no GPU has to be rented.")
        if any(option.is_doubtful for option in found.options[:20]):
            output.text("?: the slow end of the prediction misses the SLO.")
        if len(found.front) > 1:
            front = [row(option, quality) for option in found.front]
            output.table("Pareto front: cost against time per token", columns, front, right=columns[3:])
    else:
        output.text(f"{title(question.name)}: nothing carries the load.")
    _rejections(found)
    if not found.options and found.nearest:
        labelled("", nearest(found.nearest))


def formats(question: Question, found: Recommendation, quality: dict[str, dict[str, Any]]) -> None:
    """Print what else the same card could run, cheapest first, and why it could not."""
    is_load_given = bool(question.workload.rate_rps or question.workload.concurrency)
    columns = ("card", "quant", "ranks", "x", "each", "TTFT", "TPOT", "tok/s", _cost_column(is_load_given), "KL")
    rows = [row(option, quality) for option in found.options]
    if len(rows) > 1:
        output.table("Formats on this card", columns, rows, right=columns[3:])
    _rejections(found)


def _cost_column(is_load_given: bool) -> str:
    return "cost/mo" if is_load_given else "per 1M"


def nearest(miss: Rejected) -> str:
    """Return the nearest miss as a sentence, with what it would meet."""
    ranks = "" if miss.parallel == "-" else f" {miss.parallel}"
    line = f"Nearest miss: {miss.quant} on {miss.gpu}{ranks}: {miss.reason.rstrip('.')}."
    if miss.option:
        times = miss.option.prediction
        line += f" It would meet ttft={times.ttft_ms.mid:.0f}ms and itl={times.tpot_ms.mid:.1f}ms."
    return line


def curve(points: list[Point], edge: Edge) -> None:
    """Print a sweep, the cliff drawn where it is."""
    rows: list[tuple[str, ...]] = []
    was_beyond = False
    most = max(point.prediction.output_tps.mid for point in points)
    for point in points:
        if point.is_beyond_cliff and not was_beyond:
            rows.append(("── cliff", "", "", "", "", edge.cause))
            was_beyond = True
        times = point.prediction
        rows.append(
            (
                f"{point.value:.4g}" if point.value < 1000 else f"{point.value:.0f}",
                f"{times.batch:.3g}",
                f"{times.ttft_ms.mid:.0f}",
                f"{times.tpot_ms.mid:.1f}",
                f"{times.output_tps.mid:.0f}",
                "█" * round(24 * times.output_tps.mid / most),
            )
        )
    columns = (edge.axis, "at once", "TTFT ms", "TPOT ms", "tok/s", "")
    output.table(f"Sweep of {edge.axis}", columns, rows, right=columns[:5])
    labelled("", edge.sentence)


def title(name: str) -> str:
    """Return a model's name as a headline has it: of a path, its end."""
    path = Path(name)
    return path.name if path.exists() else name


def labelled(label: str, text: str, *, indent: int | None = None) -> None:
    """Print a label and a text beside it, in lines of 80 characters."""
    left = " " * (LABEL_WIDTH if label and indent is None else indent or 0)
    first = f"{label:<{LABEL_WIDTH}}" if label else left
    for piece in textwrap.wrap(text, LINE_WIDTH, initial_indent=first, subsequent_indent=left):
        output.text(piece)


def spread(value: Range) -> str:
    """Return `mid (low to high)`, with digits that fit its size."""
    digits = 0 if value.mid >= 100 else 1 if value.mid >= 10 else 2
    return f"{value.mid:,.{digits}f} ({value.low:,.{digits}f} to {value.high:,.{digits}f})"


def row(option: Option, quality: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """Return an option's cells."""
    from toolkit.plan.recommend import parallel_of

    made, times = option.candidate, option.prediction
    measured = quality.get(made.recipe.name)
    return (
        made.setup.gpu.name,
        made.recipe.name,
        parallel_of(made.sharding),
        str(option.replicas),
        str(option.concurrency),
        f"{times.ttft_ms.mid:.0f}",
        f"{times.tpot_ms.mid:.1f}",
        f"{option.served_tps:,.0f}",
        _price(option) + "?" * option.is_doubtful,
        f"{measured['kl']:.3f}" if measured else "-",
    )


def _price(option: Option) -> str:
    if option.cost is None:
        return "-"
    if option.is_load_given or not option.cost.per_million_at_duty:
        return f"{option.cost.per_month:,.0f}"
    return f"{option.cost.per_million_at_duty.mid:.3f}"


def _rejections(found: Recommendation) -> None:
    by_miss = sorted(found.rejected, key=lambda each: each.miss)
    rows = [(each.gpu, each.quant, each.parallel, each.reason) for each in by_miss]
    if rows:
        output.table("Rejected", ("card", "quant", "ranks", "reason"), rows[:MOST_REJECTIONS])
    if len(rows) > MOST_REJECTIONS:
        output.text(f"and {len(rows) - MOST_REJECTIONS} more; --json has them all.")
