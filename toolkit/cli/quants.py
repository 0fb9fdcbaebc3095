"""`trtk quants`: quantizations and where each one runs."""

from __future__ import annotations

import textwrap

import click

from toolkit.cli import output
from toolkit.specs import CPU_SM, QuantRecipe, to_json

#: Family → its SMs, which run the same quantizations; a column of the table each.
FAMILIES = {
    "CPU": (CPU_SM,),
    "Turing": (75,),
    "Ampere": (80, 86),
    "Orin": (87,),
    "Ada": (89,),
    "Hopper": (90,),
    "Blackwell": (100, 103),
    "Thor": (110,),
    "RTX Blackwell": (120,),
    "GB10": (121,),
}


@click.command(epilog=output.examples("trtk quants", "trtk quants --json"))
@output.json_option
def quants(as_json: bool) -> None:
    """List quantizations and where each one runs."""
    from toolkit.quant import catalogue

    recipes = catalogue()
    if as_json:
        output.document({"quants": [to_json(recipe) for recipe in recipes]})
        return
    columns = ["--quant", "flow", *(heading(sms) for sms in FAMILIES.values())]
    output.table("Where each quantization runs", columns, [row for recipe in recipes for row in rows(recipe)])
    named = ", ".join(f"{family} {'/'.join(map(str, sms))}" for family, sms in FAMILIES.items() if sms != (CPU_SM,))
    output.text(textwrap.fill(f"SM: {named}.", width=80))
    output.text("Y: runs. ?: nobody has confirmed it. -: does not run.\n")
    for recipe in recipes:
        output.text(f"{recipe.name:<11} {recipe.title} ({recipe.quant_algo or 'not quantized'})")


def heading(sms: tuple[int, ...]) -> str:
    """Return a column's SMs, one below the other."""
    return "CPU" if sms == (CPU_SM,) else "\n".join(map(str, sms))


def rows(recipe: QuantRecipe) -> list[list[str]]:
    """Return a line for each flow that may run a recipe somewhere."""
    lines = [[flow, *(verdict(recipe, flow, sms) for sms in FAMILIES.values())] for flow in recipe.sms_by_flow]
    lines = [line for line in lines if set(line[1:]) != {"-"}]
    return [[recipe.name if not index else "", *line] for index, line in enumerate(lines)]


def verdict(recipe: QuantRecipe, flow: str, sms: tuple[int, ...]) -> str:
    """Return whether a flow runs a recipe on all of SMS: Y, ? or -."""
    known = set(recipe.sms_by_flow.get(flow, ()))
    if known.issuperset(sms):
        return "Y"
    return "?" if known.union(recipe.unverified_sms_by_flow.get(flow, ())).issuperset(sms) else "-"
