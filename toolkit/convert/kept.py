"""What of a source that is quantized already passes through: groups of linears that are in the recipe's format."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.checkpoint.assignment import Assignment, assign
from toolkit.checkpoint.shards import Shards
from toolkit.checkpoint.source import SourceModel
from toolkit.checkpoint.stored import Kind, quantization_config
from toolkit.convert.passing import TRTLLM
from toolkit.models import family_of, parts
from toolkit.specs import ConversionPlan, ModelSource, ModelSpec, QuantRecipe
from toolkit.specs.parts import by_module


@dataclass(frozen=True, kw_only=True)
class Survey:
    """As what every linear of a quantized source is stored, read without reading the weights."""

    title: str
    kinds: Mapping[tuple[int, str], Kind | None]  # (layer, part)

    @property
    def main_kind(self) -> Kind | None:
        """What most of the linears can be kept as; None when none can."""
        counts = Counter(dataclasses.replace(kind, scale_2=None) for kind in self.kinds.values() if kind and kind.algo)
        return counts.most_common(1)[0][0] if counts else None


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a conversion does with the linears of its source."""

    title: str | None = None  # how the source is quantized; None: it is not
    kept: frozenset[tuple[int, str]] = frozenset()  # (layer, group)
    kept_linears: int = 0
    dequantized_linears: int = 0
    requantized_linears: int = 0  # of the dequantized ones, those that get a format again
    reasons: tuple[str, ...] = ()


def survey(source: SourceModel) -> Survey | None:
    """Return what a source's linears are stored as, None for a source in float."""
    if source.reader is None:
        return None
    kinds = {
        (layer, part): source.kind(layer, part)
        for layer in range(source.spec.num_layers)
        for part in parts.shapes(source.spec, layer)
    }
    return Survey(title=source.reader.title, kinds=kinds)


def survey_of(source: ModelSource, spec: ModelSpec) -> Survey | None:
    """Return the survey of a located model; opens its weights only when config.json says that they are quantized."""
    folder = Path(source.path)
    if quantization_config(folder) is None:
        return None
    return survey(SourceModel(Shards(folder), family_of(spec.architecture).tensors, spec))


def outlook_of(plan: ConversionPlan, source: ModelSource) -> Outlook:
    """Return the outlook of a located model; a search may still change it."""
    return outlook(plan, survey_of(source, plan.model), assign(plan))


def outlook(plan: ConversionPlan, found: Survey | None, assignment: Assignment) -> Outlook:
    """Return which groups pass through as they are, and why others do not."""
    if found is None:
        return Outlook()
    kept, reasons = set(), Counter[str]()
    counts = {"kept": 0, "dequantized": 0, "requantized": 0}
    for (layer, group), recipe in assignment.of.items():
        kinds = {part: found.kinds[layer, part] for part in parts.groups(plan.model, layer)[group]}
        stored = sum(kind is not None for kind in kinds.values())
        reason = why_not_kept(kinds, recipe, plan)
        if not stored:
            continue
        if reason is None:
            kept.add((layer, group))
            counts["kept"] += stored
            continue
        reasons[reason] += stored
        counts["dequantized"] += stored
        counts["requantized"] += stored if recipe is not None and not plan.is_source_kept else 0
    return Outlook(
        title=found.title,
        kept=frozenset(kept),
        kept_linears=counts["kept"],
        dequantized_linears=counts["dequantized"],
        requantized_linears=counts["requantized"],
        reasons=tuple(reason for reason, _ in reasons.most_common()),
    )


def why_not_kept(kinds: Mapping[str, Kind | None], recipe: QuantRecipe | None, plan: ConversionPlan) -> str | None:
    """Return why a group cannot pass through as the recipe's format, None when it can."""
    wanted = recipe.quant_algo if recipe else None
    stored = [kind for kind in kinds.values() if kind is not None]
    if len(stored) < len(kinds):
        return "some linears that share an input are in float"
    reasons = [reason for kind in stored if (reason := _why_not(kind, wanted, plan.group_size))]
    if not reasons and plan.layout == TRTLLM:
        modules = by_module({part: kind.scale_2 for part, kind in kinds.items() if kind})
        reasons = ["linears of one module have different second scales" for m in modules if len(set(m.values())) > 1]
    return reasons[0] if reasons else None


def _why_not(kind: Kind, wanted: str | None, group_size: int | None) -> str:
    if kind.algo is None:
        return kind.reason
    if wanted is None:
        return f"it is {kind.algo}, and 16 bits were asked for"
    if kind.algo != wanted:
        return f"it is {kind.algo}, and {wanted} was asked for"
    if group_size and kind.group_size and kind.group_size % group_size:
        return f"its groups have {kind.group_size} inputs, and {group_size} were asked for"
    return ""


def assignment_of_kept(assignment: Assignment, kept: Iterable[tuple[int, str]]) -> Assignment:
    """Return the assignment of --quant keep: what passes through has its recipe, the rest 16 bits."""
    held = set(kept)
    return Assignment(of={key: recipe if key in held else None for key, recipe in assignment.of.items()})
