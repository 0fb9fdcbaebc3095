"""Which recipe each group of linears gets: one for all, minus what is excluded, or what a search decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from toolkit.errors import UsageError
from toolkit.models import family_of, parts
from toolkit.models.parts import tensor_name
from toolkit.specs import ConversionPlan, ModelSpec, QuantRecipe


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """`of` holds a recipe, or None for 16 bits, for every (layer, group of specs/parts.py)."""

    of: Mapping[tuple[int, str], QuantRecipe | None] = field(default_factory=dict)

    @property
    def algos(self) -> set[str | None]:
        """The quantization algorithms in use, None for 16 bits."""
        return {recipe.quant_algo if recipe else None for recipe in self.of.values()}

    @property
    def is_mixed(self) -> bool:
        """Whether more than one algorithm is in use, besides what stays in 16 bits."""
        return len(self.algos - {None}) > 1


def assign(plan: ConversionPlan, searched: Mapping[tuple[int, str], QuantRecipe | None] | None = None) -> Assignment:
    """Return the recipe of every group: excluded ones stay in 16 bits, others get what was searched, or the plan's."""
    of = {
        (layer, group): None if is_excluded(plan, layer, group) else (searched or {}).get((layer, group), plan.recipe)
        for layer in range(plan.model.num_layers)
        for group in parts.groups(plan.model, layer)
    }
    _check_patterns(plan)
    return Assignment(of=_with_mixtures_whole(plan.model, of))


def group_size_of(plan: ConversionPlan, recipe: QuantRecipe) -> int | None:
    """Return the group size of one recipe of a plan: the plan's own where the recipe's kernels take it."""
    if plan.group_size in recipe.group_sizes:
        return plan.group_size
    return min(recipe.group_sizes, default=None)


def _with_mixtures_whole(
    model: ModelSpec, of: dict[tuple[int, str], QuantRecipe | None]
) -> dict[tuple[int, str], QuantRecipe | None]:
    """Return the recipes with one for all experts of a layer: the MoE plugin has a single format for both products."""
    for layer in filter(model.is_moe_layer, range(model.num_layers)):
        first, second = of[layer, "mlp.fc"], of[layer, "mlp.proj"]
        of[layer, "mlp.proj"] = of[layer, "mlp.fc"] = first if second else None
    return of


def _check_patterns(plan: ConversionPlan) -> None:
    """Raise UsageError for a pattern that names nothing: it would be a typing error that goes unseen."""
    for pattern in plan.exclude:
        names = (
            name
            for layer in range(plan.model.num_layers)
            for group in parts.groups(plan.model, layer)
            for name in module_names(plan.model, layer, group)
        )
        if not any(fnmatchcase(name, pattern) for name in names):
            examples = list(module_names(plan.model, 0, "mlp.proj"))
            raise UsageError(
                f"--exclude {pattern!r} matches no module.",
                hint=f"Modules are named like {' or '.join(examples[1:3])}.",
            )


def is_excluded(plan: ConversionPlan, layer: int, group: str) -> bool:
    """Return whether a pattern names any module of a group, in TensorRT-LLM's or Hugging Face's words."""
    if not plan.exclude:  # names are many
        return False
    names = list(module_names(plan.model, layer, group))
    return any(fnmatchcase(name, pattern) for name in names for pattern in plan.exclude)


def module_names(model: ModelSpec, layer: int, group: str) -> Iterator[str]:
    """Yield the names by which a group may be excluded: the group's own, its TensorRT-LLM and Hugging Face modules."""
    members = parts.groups(model, layer)[group]
    yield f"transformer.layers.{layer}.{group}"
    for module, held in parts.modules(model, layer).items():
        if set(held) & set(members):
            yield f"transformer.layers.{layer}.{module}"
    names = family_of(model.architecture).tensors
    for part in members:
        yield f"{names.layer.format(index=layer)}{tensor_name(names, part)}"
