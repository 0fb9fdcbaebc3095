"""What `trtk plan` composes: cards, formats, prices, measured constants and quality, handed to the pure planner."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cli import plan_options
from toolkit.cli.planning import need_kv_cache_type
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import GpuSpec, ModelSpec, Prediction, QuantRecipe, ServerSetup, Sharding, Slo, Workload

if TYPE_CHECKING:
    from toolkit.plan import Target
    from toolkit.plan.candidates import Bought, Candidate
    from toolkit.plan.knobs import Knob
    from toolkit.plan.recommend import Option, Recommendation, Rejected, Wanted

#: One format of each kind: what else there is differs in how it is made, not in its bytes or its arithmetic.
RECOMMENDED = ("fp16", "fp8", "int8", "int8_sq", "int4", "nvfp4")
#: What the planner leaves to the rest of a host.
HOST_SHARE = 0.9


@dataclass(frozen=True, kw_only=True)
class Question:
    """What was asked, read once."""

    name: str
    model: ModelSpec
    workload: Workload
    wanted: Wanted
    slo: Slo
    options: dict[str, Any]
    prices: Callable[[GpuSpec], Bought | None]

    @property
    def sharding(self) -> Sharding:
        """Ranks as asked."""
        return Sharding(**{name: self.options[name] for name in ("tp", "pp", "ep")})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One card, format and ranks, worked out."""

    candidate: Candidate
    prediction: Prediction
    option: Option | None  # replicas, where the load and the SLO can be carried
    missed: Rejected | None
    longest_context: int
    knobs: tuple[Knob, ...]


def question_of(name: str, options: dict[str, Any]) -> Question:
    """Read the options; raises UsageError for what cannot be meant before anything is looked up."""
    from toolkit.models import configs
    from toolkit.plan.recommend import Wanted

    slo, headroom = plan_options.slo_of(options), plan_options.headroom_of(options)
    prices, budget = plan_options.prices_of(options), plan_options.budget_of(options)
    if not 0 < options["duty"] <= 1:
        raise UsageError(f"--duty {options['duty']:g} is no share of the time.", hint="Write --duty 0.4, of 1 at most.")
    model = configs.read(name)
    workload = plan_options.workload_of(options, model)
    wanted = Wanted(
        workload=workload,
        slo=slo,
        budget_per_month=budget,
        headroom=headroom,
        duty=options["duty"],
        speculation=plan_options.speculation_of(options),
    )
    return Question(name=name, model=model, workload=workload, wanted=wanted, slo=slo, options=options, prices=prices)


def target_of(question: Question, gpu: str) -> Target:
    """Return a card, or this host as one, in the release and flow that are asked for."""
    from toolkit import gpus, plan, releases

    found = gpus.get(gpu)
    if found.is_cpu:
        found = dataclasses.replace(found, memory_usable_mib=int(HOST_SHARE * host_bytes()) >> 20)
    release = releases.get(question.options["release"])
    return plan.Target(gpu=found, flow=question.options["flow"], **releases.facts_of(release))


def host_bytes() -> int:
    """Return the memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def predictor() -> Callable[[ServerSetup, Workload], Prediction]:
    """Return the time model with what it was fitted to, and what was measured on the card."""
    from toolkit import calibration, speeds
    from toolkit.plan import speed

    constants, known = speeds.constants(), calibration.read_all()

    def predict(setup: ServerSetup, workload: Workload) -> Prediction:
        own = calibration.best_for(setup, among=known)
        return speed.predict(setup, workload, constants=constants, calibration=own)

    return predict


def recipes_of(question: Question) -> tuple[QuantRecipe, ...]:
    """Return the asked format, else one of each kind."""
    from toolkit import quant

    asked = question.options["quant"]
    return (quant.get(asked),) if asked else tuple(quant.get(name) for name in RECOMMENDED)


def kept(question: Question, gpu: str) -> tuple[QuantRecipe, int]:
    """Return (what the weights in a folder are, the bytes that their headers say) for --quant keep."""
    from toolkit import convert, models, plan
    from toolkit.checkpoint.shards import read_header
    from toolkit.cli import source_options

    source = models.locate(question.name)
    is_engine = target_of(question, gpu).flow in {"auto", "engine"}
    found = convert.survey_of(source, question.model)
    recipe = source_options.recipe_of(source_options.KEEP, found, plan.layout_of("engine" if is_engine else "llmapi"))
    headers = [read_header(path) for path in sorted(Path(source.path).glob("*.safetensors"))]
    ends = [entry["data_offsets"] for header in headers for entry in header.values()]
    return recipe, sum(end - start for start, end in ends)


def answer(question: Question, gpu: str, recipe: QuantRecipe, *, weights_bytes: int | None = None) -> Answer:
    """Return one plan; raises PlanInfeasible where the model, or one request, does not fit.

    WEIGHTS_BYTES: of one rank, where headers say them; counted from the shapes otherwise.
    """
    from toolkit.plan import limits, recommend
    from toolkit.plan.candidates import candidate
    from toolkit.plan.knobs import longest_context

    target = target_of(question, gpu)
    options = question.options
    asked = limits.Asked(
        max_batch_size=options["max_batch_size"],
        max_seq_len=options["max_seq_len"],
        max_num_tokens=options["max_num_tokens"],
        workload=question.workload if _is_load_known(question) else None,
        headroom=question.wanted.headroom,
        speculation=question.wanted.speculation,
        weights_bytes=weights_bytes if question.sharding == Sharding() else None,
    )
    try:
        made = candidate(
            question.model,
            target,
            recipe,
            sharding=question.sharding,
            asked=asked,
            kv_asked=options["kv_cache"],
        )
    except limits.TooSmall as refusal:
        raise PlanInfeasible(str(refusal), hint=_way_out(question, gpu) or refusal.hint) from None
    need_kv_cache_type(made.kv_type, made.flow, target.gpu)
    predict = predictor()
    load = question.workload
    in_flight = load if load.concurrency or load.rate_rps else dataclasses.replace(load, concurrency=None)
    found = recommend.option_of(made, question.wanted, price=question.prices(target.gpu), predict=predict)
    if isinstance(found, recommend.Option) and load.rate_rps is not None:
        prediction = found.prediction  # of a rate that takes replicas, each has its share
    else:
        prediction = predict(made.setup, in_flight)
    return Answer(
        candidate=made,
        prediction=prediction,
        option=found if isinstance(found, recommend.Option) else found.option,
        missed=None if isinstance(found, recommend.Option) else found,
        longest_context=longest_context(made.loaded, made.sizing),
        knobs=tuple(_knobs(question, target, made, asked)),
    )


def _is_load_known(question: Question) -> bool:
    """Return whether anything was said of the requests, or of how many come: then a server is sized for them."""
    load = question.workload
    return plan_options.has_workload(question.options) or load.concurrency is not None or load.rate_rps is not None


def _way_out(question: Question, gpu: str) -> str | None:
    """Return what carries the same load on this card, or on several of it."""
    from toolkit.plan.recommend import parallel_of

    free = dataclasses.replace(question, options={**question.options, "quant": None})
    ways = [option.candidate for option in recommendation(free, [gpu]).options]
    for made in sorted(ways, key=lambda each: (each.gpus, -each.recipe.weight_bits, _place(each.recipe))):
        ranks = parallel_of(made.sharding)
        options = "" if ranks == "-" else "".join(f" --{rank[:2]} {rank[2:]}" for rank in ranks.split())
        return f"Try --quant {made.recipe.name}{options}."
    return None


def _place(recipe: QuantRecipe) -> int:
    return RECOMMENDED.index(recipe.name)


def _knobs(question: Question, target: Target, made: Candidate, asked: Any) -> Iterator[Knob]:
    from toolkit.plan import knobs, recommend, support
    from toolkit.plan.candidates import loaded_as

    resolved = support.resolve(target, made.recipe, recipes=(made.recipe,), model=question.model)
    others = []
    changes: list[tuple[str, str, QuantRecipe, Sharding, str]] = [
        ("--quant", f"{made.recipe.name} → {recipe.name}", recipe, made.sharding, question.options["kv_cache"])
        for recipe in _other_recipes(made.recipe)
    ]
    if made.kv_type is None and not target.gpu.is_cpu:
        changes.append(("--kv-cache", "16 bits → fp8", made.recipe, made.sharding, "fp8"))
    if not target.gpu.is_cpu:
        more = dataclasses.replace(made.sharding, tp=2 * made.sharding.tp)
        ranks = f"{recommend.parallel_of(made.sharding)} → {recommend.parallel_of(more)}"
        changes.append(("--tp", ranks, made.recipe, more, question.options["kv_cache"]))
    for name, change, recipe, sharding, kv_asked in changes:
        try:
            flow = support.resolve(
                dataclasses.replace(resolved, flow_choice=None, flow=support.AUTO),
                recipe,
                recipes=(),
                model=made.setup.model,
            )
            loaded, kv_type = loaded_as(question.model, flow, recipe, sharding=sharding, kv_asked=kv_asked)
            need_kv_cache_type(kv_type, flow.flow, target.gpu)
        except PlanInfeasible:
            continue
        others.append((name, change, loaded))
    yield from knobs.knobs(made.loaded, asked, made.sizing, others=others)


def _other_recipes(own: QuantRecipe) -> list[QuantRecipe]:
    from toolkit import quant

    return [quant.get(name) for name in RECOMMENDED if quant.get(name).quant_algo != own.quant_algo]


def recommendation(question: Question, cards: list[str]) -> Recommendation:
    """Return the ways to carry the load on any of the cards."""
    from toolkit.plan import recommend

    targets = [target_of(question, name) for name in cards]
    return recommend.recommend(
        question.model,
        targets,
        recipes_of(question),
        wanted=question.wanted,
        prices=question.prices,
        predict=predictor(),
    )


def cards_of(text: str | None, question: Question) -> list[str]:
    """Return the named cards, else every one that has a price, and the CPU."""
    from toolkit import gpus

    if text is not None:
        named = [name for name in text.split(",") if name.strip()]
        if not named:
            raise UsageError(f"{text!r} names no card.", hint="Write a4500,l4,4090.")
        return [gpus.get(name.strip()).name for name in named]
    priced = [gpu.name for gpu in gpus.catalogue() if not gpu.is_cpu and question.prices(gpu)]
    if not priced:
        where = f" in {question.options['region']}" if question.options["region"] else ""
        raise UsageError(f"No card has a price{where}.", hint="Give --prices FILE, --price 0.35EUR/h or --gpu NAME.")
    return ["cpu", *priced]


def quality(name: str) -> dict[str, dict[str, Any]]:
    """Return what was measured of each format of a model, from the builds in engines/: recipe → ppl, ppl_base, kl."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(Path("engines").glob("*/manifest.json")):
        found |= _quality_in(path, name.partition("@")[0])
    return found


def _quality_in(path: Path, name: str) -> dict[str, dict[str, Any]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        evaluation, of_model = document["evaluation"], document["model"]["name"].partition("@")[0]
        recipe = document["plan"]["conversion"]["recipe"]["name"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # another's, or half a file: quality is beside the point of a plan
    return {recipe: evaluation} if evaluation and of_model == name else {}


def best_of_each(found: Recommendation) -> Recommendation:
    """Return the first option of each card, and the nearest miss of each that has none."""
    from toolkit.plan.recommend import Recommendation, front_of

    best: dict[str, Option] = {}
    for option in found.options:
        best.setdefault(option.candidate.setup.gpu.name, option)
    missed: dict[str, Rejected] = {}
    for each in sorted(found.rejected, key=lambda each: each.miss):
        if each.gpu not in best:
            missed.setdefault(each.gpu, each)
    options = tuple(best.values())
    return Recommendation(options=options, front=front_of(options), rejected=tuple(missed.values()))
