"""Whether a model's shapes can be divided among ranks, or into blocks."""

from __future__ import annotations

from toolkit.errors import PlanInfeasible
from toolkit.specs import HybridModelSpec, LatentModelSpec, ModelSpec, QuantRecipe, Sharding

#: Both sides of FP8_BLOCK_SCALES' blocks.
BLOCK = 128


def check(model: ModelSpec, sharding: Sharding) -> None:
    """Raise PlanInfeasible, naming the option, when ranks would get unequal shares.

    Rows that share a byte stay together: where whole groups fit into a rank's inputs, its rows are even in number.
    """
    tp = sharding.tp
    _check_experts(model, sharding)
    if sharding.pp > model.num_layers:
        raise PlanInfeasible(
            f"--pp {sharding.pp} is more than the model's {model.num_layers} layers.",
            hint=f"Try --pp {model.num_layers} or fewer.",
        )
    _need_divisible("attention heads", model.num_heads, tp)
    keys = model.num_kv_heads
    if (tp % keys) if tp > keys else (keys % tp):
        raise PlanInfeasible(
            f"--tp {tp} and the model's {keys} KV heads do not divide one another.",
            hint=f"Try --tp {_largest_fitting(keys, tp)}.",
        )
    for what, width, parts in _widths(model, sharding):
        _need_divisible(what, width, parts)
    if model.architecture.startswith("Gemma"):  # TensorRT-LLM's class shares the embedding and refuses to pad it
        _need_divisible("vocabulary entries", model.vocab_size, tp)


def row_parallel_inputs(model: ModelSpec, sharding: Sharding) -> dict[str, int]:
    """Return K on each rank of the linears that are divided along it: whole groups must fit in."""
    inputs = {"attention.dense": model.num_heads * model.value_dim // sharding.tp}
    for what, width, parts in _widths(model, sharding):
        inputs["mlp.shared_expert.proj" if what.startswith("shared") else "mlp.proj"] = width // parts
    return inputs


def check_blocks(model: ModelSpec, recipe: QuantRecipe) -> None:
    """Raise PlanInfeasible when blocks of one linear would reach into the next that a loader fuses it with."""
    if recipe.quant_algo != "FP8_BLOCK_SCALES":
        return
    attention = {
        "attention.q": model.num_heads * model.head_dim,
        "attention.k": model.num_kv_heads * model.head_dim,
    }
    rows = {
        **({} if isinstance(model, (LatentModelSpec, HybridModelSpec)) else attention),  # whose linears are not fused
        **{f"mlp ({what})": width for what, width, _ in _widths(model, Sharding())},
    }
    for part, count in rows.items():
        if count % BLOCK:
            raise PlanInfeasible(
                f"{recipe.name} has one scale for {BLOCK} x {BLOCK} weights, and loaders fuse linears by whole blocks; "
                f"{part} has {count} rows.",
                hint="Try --quant fp8 or --quant fp8_rowwise.",
            )


def _check_experts(model: ModelSpec, sharding: Sharding) -> None:
    tp, ep = sharding.tp, sharding.ep
    if ep == 1:
        return
    if model.moe is None:
        raise PlanInfeasible(f"--ep {ep} divides experts, and {model.architecture} has none.", hint="Leave --ep out.")
    if tp % ep:
        raise PlanInfeasible(
            f"--ep {ep} does not divide --tp {tp}: experts are divided among the tensor-parallel ranks.",
            hint=f"Try --tp {ep} --ep {ep}.",
        )
    if model.moe.num_experts % ep:
        raise PlanInfeasible(
            f"--ep {ep} does not divide the model's {model.moe.num_experts} experts.",
            hint=f"Try --ep {_largest_fitting(model.moe.num_experts, ep)}.",
        )


def _widths(model: ModelSpec, sharding: Sharding) -> list[tuple[str, int, int]]:
    """Return (what, inner width of an MLP, ranks that share it)."""
    moe = model.moe
    found = []
    if moe is None or moe.dense_layers:
        found.append(("intermediate size", model.intermediate_size, sharding.tp))
    if moe:
        found.append(("expert intermediate size", moe.intermediate_size, sharding.tp // sharding.ep))
        if moe.shared_intermediate_size:
            found.append(("shared expert intermediate size", moe.shared_intermediate_size, sharding.tp))
    return found


def _need_divisible(what: str, count: int, parts: int) -> None:
    if count % parts:
        raise PlanInfeasible(
            f"--tp {parts} does not divide the model's {count} {what}.",
            hint=f"Try --tp {_largest_fitting(count, parts)}.",
        )


def _largest_fitting(count: int, below: int) -> int:
    return next(parts for parts in range(min(below - 1, count), 0, -1) if count % parts == 0)
