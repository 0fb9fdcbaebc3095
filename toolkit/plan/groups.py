"""The group size of 4-bit weights: it must divide every linear's input."""

from __future__ import annotations

from toolkit.errors import PlanInfeasible
from toolkit.plan import shards
from toolkit.specs import Choice, ModelSpec, QuantRecipe, Sharding, parts

QKV = {"attention.q", "attention.k", "attention.v"}


def inputs_of_linears(model: ModelSpec) -> dict[str, int]:
    """Return K of every kind of quantized linear; experts count as one."""
    found = {}
    kinds = {model.is_moe_layer(layer): layer for layer in range(model.num_layers)}
    for layer in kinds.values():
        for part, (_, width) in parts.shapes(model, layer).items():
            prefix, _, name = part.rpartition(".")
            if part in QKV:
                found["attention.qkv"] = width
            else:
                found[f"mlp.experts.*.{name}" if prefix.startswith("mlp.experts.") else part] = width
    return found


def choose(
    model: ModelSpec, recipe: QuantRecipe, asked: int | None, *, sharding: Sharding
) -> tuple[int | None, tuple[Choice, ...]]:
    """Return the group size and why; raises PlanInfeasible when the asked one does not divide a K, or none does."""
    if recipe.default_group_size is None:
        if asked is not None:
            raise PlanInfeasible(
                f"{recipe.name} has no groups, so --group-size {asked} cannot be meant.", hint="Leave --group-size out."
            )
        return None, ()
    inputs = inputs_of_linears(model)
    if sharding.tp > 1:
        of_ranks = shards.row_parallel_inputs(model, sharding)
        inputs |= {f"{name} on each of {sharding.tp} ranks": width for name, width in of_ranks.items()}
    fitting = [size for size in recipe.group_sizes if all(width % size == 0 for width in inputs.values())]
    if not fitting:
        module, width = next((name, k) for name, k in inputs.items() if k % recipe.group_sizes[-1])
        raise PlanInfeasible(
            f"{recipe.name} needs a group size of {', '.join(map(str, recipe.group_sizes))} that divides every input; "
            f"{module} has K = {width}.",
            hint="Try --quant int8.",
        )
    if asked is not None:
        return _asked(asked, recipe, inputs, fitting), (Choice(name="group_size", value=str(asked), reason="as asked"),)
    size = fitting[0]
    if size == recipe.default_group_size:
        return size, (Choice(name="group_size", value=str(size), reason="the usual size; it divides every K"),)
    module, width = next((name, k) for name, k in inputs.items() if k % recipe.default_group_size)
    reason = f"{recipe.default_group_size} does not divide {module}'s K of {width}; {size} is the largest that does"
    return size, (Choice(name="group_size", value=str(size), reason=reason),)


def _asked(asked: int, recipe: QuantRecipe, inputs: dict[str, int], fitting: list[int]) -> int:
    for module, width in inputs.items():
        if width % asked:
            raise PlanInfeasible(
                f"--group-size {asked} does not divide {module}'s K of {width}.",
                hint=f"Try --group-size {fitting[0]}.",
            )
    if asked not in recipe.group_sizes:
        sizes = ", ".join(map(str, recipe.group_sizes))
        raise PlanInfeasible(
            f"--group-size {asked} is not one that kernels take: {sizes}.",
            hint=f"Try --group-size {fitting[0]}.",
        )
    return asked
