"""What a source that is quantized already means for the options, and what is said about it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from toolkit.specs import ConversionPlan, ModelSource, QuantRecipe

if TYPE_CHECKING:
    from toolkit.convert.kept import Outlook, Survey

#: --quant keep: what is quantized stays as it is, the rest is 16 bits.
KEEP = "keep"


def recipe_of(name: str, found: Survey | None, layout: str) -> QuantRecipe:
    """Return the recipe called NAME; `keep` is what most of the source's linears can be kept as in the layout."""
    from toolkit import quant
    from toolkit.errors import UsageError

    if name != KEEP:
        return quant.get(name)
    if found is None:
        raise UsageError("The model is not quantized, so --quant keep has nothing to keep.", hint="Try --quant fp16.")
    algo = found.main_kind.algo if found.main_kind else None
    fitting = [
        recipe for recipe in quant.catalogue() if algo and recipe.quant_algo == algo and layout in recipe.layouts
    ]
    base = min(fitting, key=lambda recipe: recipe.needs_calibration, default=quant.get("fp16"))
    title = f"as the source: {found.title}"
    return dataclasses.replace(base, name=KEEP, title=title, aliases=(), needs_calibration=False)


def group_size_of(recipe: QuantRecipe, found: Survey | None) -> int | None:
    """Return the source's own group size where the recipe would keep it; None leaves it to the plan."""
    kind = found.main_kind if found else None
    if kind is None or kind.algo != recipe.quant_algo or not recipe.default_group_size:
        return None
    return kind.group_size if kind.group_size in recipe.group_sizes else None  # larger ones are several with one scale


def facts(plan: ConversionPlan, source: ModelSource) -> dict[str, Any]:
    """Return what --json says about the source's own quantization."""
    from toolkit import convert

    outlook = convert.outlook_of(plan, source)
    return {
        "source_quantization": outlook.title,
        "is_requantized": outlook.requantized_linears > 0,
        "kept_linears": outlook.kept_linears,
        "dequantized_linears": outlook.dequantized_linears,
    }


def sentence(outlook: Outlook, plan: ConversionPlan) -> str:
    """Return what happens to the linears of a quantized source."""
    kept, lost = outlook.kept_linears, outlook.dequantized_linears
    said = f"The source is quantized already ({outlook.title})"
    is_shared = plan.recipe.quant_algo == "FP8" and plan.layout == "trtllm"
    how = "pass through, under one scale where the engine fuses them" if is_shared else "pass through unchanged"
    if not lost:
        return f"{said}: its {kept} linears {how}."
    then = "quantized again" if outlook.requantized_linears else "stored in 16 bits"
    dequantized = f"dequantized ({'; '.join(outlook.reasons)}) and {then}"
    return f"{said}: {kept} linears {how}, {lost} are {dequantized}." if kept else f"{said}: it is {dequantized}."
