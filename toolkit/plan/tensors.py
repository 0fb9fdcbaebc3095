"""The bytes of every tensor in a checkpoint, counted from shapes: what a file holds, rank by rank and layout by layout.

A rank of a TensorRT-LLM checkpoint holds whole modules (q, k and v joined, experts stacked); a unified Hugging Face
checkpoint holds each linear by itself. What a format stores of a module is a row of STORED.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from toolkit.plan.storage import HF, TRTLLM
from toolkit.specs import (
    ConversionPlan,
    HybridModelSpec,
    LatentModelSpec,
    ModelSpec,
    QuantRecipe,
    Sharding,
    parts,
)

FLOAT_BYTES = 2
SCALE_BYTES = 4
ROUTER_BYTES = 4
KV_SCALES = {TRTLLM: 1, HF: 2}
#: Formats whose factors of what reads a norm are multiplied into that norm, in a unified checkpoint.
FOLDED = {"W4A16_AWQ", "W4A8_AWQ"}

#: (layer, group of specs/parts.py) → its recipe, None for 16 bits; where it is silent, the plan's.
Recipes = Mapping[tuple[int, str], QuantRecipe | None]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a format stores of a module [N, K]."""

    weight_bits: int = 16
    row_scale_bytes: int = 0
    group_scale_bytes: int = 0  # for each row and group of columns
    block: int = 0  # side of square blocks with a float32 scale each
    scales: int = 0  # float32, one for the whole of each linear
    input_scales: int = 0  # the same, but one for all experts of a stack
    has_prequant: bool = False  # a 16-bit factor for each column


#: Read off toolkit/quant/formats and the writers of toolkit/checkpoint; a test compares it with their files.
STORED: Mapping[str | None, Stored] = {
    None: Stored(),
    "FP8": Stored(weight_bits=8, scales=1, input_scales=1),
    "FP8_PER_CHANNEL_PER_TOKEN": Stored(weight_bits=8, row_scale_bytes=SCALE_BYTES),
    "FP8_BLOCK_SCALES": Stored(weight_bits=8, block=128),
    "W8A8_SQ_PER_CHANNEL": Stored(weight_bits=8, row_scale_bytes=SCALE_BYTES, input_scales=1, has_prequant=True),
    "W4A16_AWQ": Stored(weight_bits=4, group_scale_bytes=SCALE_BYTES, has_prequant=True),
    "W4A8_AWQ": Stored(weight_bits=4, group_scale_bytes=SCALE_BYTES, scales=1, input_scales=1, has_prequant=True),
    "NVFP4": Stored(weight_bits=4, group_scale_bytes=1, scales=1, input_scales=1),
    "W8A16": Stored(),  # trtllm-build rounds it
}
#: Where a layout stores a format otherwise.
STORED_IN_HF: Mapping[str | None, Stored] = {"W8A16": Stored(weight_bits=8, row_scale_bytes=FLOAT_BYTES)}
#: What an engine holds: float checkpoints are rounded, and scales of groups become 16-bit, when it is built.
LOADED: Mapping[str | None, Stored] = {
    **STORED,
    **STORED_IN_HF,
    "W4A16_AWQ": dataclasses.replace(STORED["W4A16_AWQ"], group_scale_bytes=FLOAT_BYTES),
    "W4A8_AWQ": dataclasses.replace(STORED["W4A8_AWQ"], group_scale_bytes=FLOAT_BYTES),
}


@dataclass(frozen=True, kw_only=True)
class Module:
    """A linear of a layer as one rank holds it."""

    group: str  # of specs/parts.py
    rows: int
    width: int
    experts: int = 1
    bias_rows: int = 0


def checkpoint_bytes(plan: ConversionPlan, recipes: Recipes | None = None) -> tuple[int, ...]:
    """Return the bytes of the tensors of each rank's file, headers not counted; of a unified checkpoint, of all."""
    stored = STORED if plan.layout == TRTLLM else {**STORED, **STORED_IN_HF}
    if plan.layout == HF:
        return (_whole(plan, stored, recipes or {}),)
    return tuple(
        _stage_bytes(plan, stage, stored, recipes or {})
        for stage in range(plan.sharding.pp)
        for _ in range(plan.sharding.tp)
    )


def layers_of(stage: int, *, num_layers: int, pp: int) -> range:
    """Return the layers of a pipeline stage; the first stages get one more where pp does not divide."""
    short, longer = divmod(num_layers, pp)
    start = stage * short + min(stage, longer)
    return range(start, start + short + (stage < longer))


def stages_of(num_layers: int, pp: int) -> list[range]:
    """Return the layers of each pipeline stage."""
    return [layers_of(stage, num_layers=num_layers, pp=pp) for stage in range(pp)]


def module_bytes(module: Module, form: Stored, *, group_size: int | None, layout: str, is_folded: bool = False) -> int:
    """Return what a format stores of a module, all its experts together."""
    each = module.rows * module.width * form.weight_bits // 8
    each += module.rows * form.row_scale_bytes + SCALE_BYTES * form.scales + FLOAT_BYTES * module.bias_rows
    if form.group_scale_bytes and group_size:
        each += module.rows * (module.width // group_size) * form.group_scale_bytes
    if form.block:
        each += SCALE_BYTES * -(-module.rows // form.block) * -(-module.width // form.block)
    if form.has_prequant and not is_folded:
        each += FLOAT_BYTES * module.width
    of_inputs = SCALE_BYTES * form.input_scales * (module.experts if layout == HF else 1)
    return each * module.experts + of_inputs


def modules(
    model: ModelSpec, sharding: Sharding, *, is_moe: bool, layout: str, is_recurrent: bool = False
) -> Iterator[Module]:
    """Yield a layer's modules as each rank of a stage holds them."""
    if isinstance(model, (LatentModelSpec, HybridModelSpec)):
        yield from _other_attention(model, sharding, is_recurrent=is_recurrent)
    else:
        yield from _attention(model, sharding, layout)
    moe = model.moe
    if not is_moe or moe is None:
        is_joined = model.is_mlp_fused
        yield from _mlp(model, "mlp.", inner=model.intermediate_size // sharding.tp, is_joined=is_joined)
        return
    is_joined = layout == TRTLLM
    if moe.shared_intermediate_size:
        inner = moe.shared_intermediate_size // sharding.tp
        yield from _mlp(model, parts.SHARED_EXPERT, inner=inner, is_joined=is_joined)
    inner = moe.intermediate_size * sharding.ep // sharding.tp
    yield from _mlp(model, "mlp.", inner=inner, is_joined=is_joined, experts=moe.num_experts // sharding.ep)


def small_bytes(model: ModelSpec, *, is_moe: bool, router_bytes: int = ROUTER_BYTES, is_recurrent: bool = False) -> int:
    """Return a layer's norms, router and gate of the shared expert, which every rank holds whole."""
    count = (4 if model.has_sandwich_norms else 2) * model.hidden_size
    if model.has_qk_norm and not is_recurrent:
        count += 2 * model.head_dim
    count += latent_norms(model) + (recurrent_parameters(model) if is_recurrent else 0)
    if not is_moe or model.moe is None:
        return FLOAT_BYTES * count
    if model.has_shared_gate:
        count += model.hidden_size
    router = router_bytes * model.moe.num_experts * model.hidden_size + SCALE_BYTES * router_biases(model)
    return FLOAT_BYTES * count + router


def latent_norms(model: ModelSpec) -> int:
    """Return the weights of a layer's norms over compressed queries, keys and values."""
    return (model.q_lora_rank or 0) + model.kv_lora_rank if isinstance(model, LatentModelSpec) else 0


def recurrent_parameters(model: ModelSpec) -> int:
    """Return what a recurrent layer has besides linears: a convolution, two numbers a head, a norm."""
    if not isinstance(model, HybridModelSpec):
        return 0
    return model.conv_channels * model.conv_width + 2 * model.value_heads + model.state_value_dim


def router_biases(model: ModelSpec) -> int:
    """Return the biases that a layer's router chooses experts by, which stay in 32 bits."""
    return model.moe.num_experts if model.moe and isinstance(model, LatentModelSpec) and model.has_router_bias else 0


def table_bytes(model: ModelSpec, tp: int = 1) -> int:
    """Return a rank's share of the embedding, or of the head; rows are padded where tp does not divide."""
    return FLOAT_BYTES * -(-model.vocab_size // tp) * model.hidden_size


def _attention(model: ModelSpec, sharding: Sharding, layout: str) -> Iterator[Module]:
    queries = model.num_heads * model.head_dim // sharding.tp
    keys = max(1, model.num_kv_heads // sharding.tp) * model.head_dim
    is_joined = layout == TRTLLM or model.is_mlp_fused  # who joins gate and up joins q, k and v
    for rows in (queries + 2 * keys,) if is_joined else (queries, keys, keys):
        biased = rows if model.has_qkv_bias else 0
        yield Module(group="attention.qkv", rows=rows, width=model.hidden_size, bias_rows=biased)
    biased = model.hidden_size if model.has_output_bias else 0
    yield Module(group="attention.dense", rows=model.hidden_size, width=queries, bias_rows=biased)


def _other_attention(model: ModelSpec, sharding: Sharding, *, is_recurrent: bool) -> Iterator[Module]:
    for name, (rows, width) in parts.attention(model, is_recurrent=is_recurrent).items():
        is_dense = name == "attention.dense"
        # What compresses is whole on every rank; what widens is divided by heads.
        of_rank = rows if is_dense or name.endswith("_a") else rows // sharding.tp
        group = name if is_dense else "attention.qkv"
        yield Module(group=group, rows=of_rank, width=width // sharding.tp if is_dense else width)


def _mlp(model: ModelSpec, prefix: str, *, inner: int, is_joined: bool, experts: int = 1) -> Iterator[Module]:
    has_bias = model.has_mlp_bias and prefix == "mlp." and experts == 1
    for rows in (2 * inner,) if is_joined else (inner, inner):
        biased = rows if has_bias else 0
        yield Module(group=f"{prefix}fc", rows=rows, width=model.hidden_size, experts=experts, bias_rows=biased)
    biased = model.hidden_size if has_bias else 0
    yield Module(group=f"{prefix}proj", rows=model.hidden_size, width=inner, experts=experts, bias_rows=biased)


def _stage_bytes(plan: ConversionPlan, stage: int, stored: Mapping[str | None, Stored], recipes: Recipes) -> int:
    model, ranks = plan.model, plan.sharding
    held = layers_of(stage, num_layers=model.num_layers, pp=ranks.pp)
    total = _layers_bytes(plan, held, stored, recipes)
    if stage == 0:
        total += table_bytes(model, ranks.tp)
    if stage == ranks.pp - 1:  # a tied head is written out as well
        total += table_bytes(model, ranks.tp) + FLOAT_BYTES * model.hidden_size
    return total


def _whole(plan: ConversionPlan, stored: Mapping[str | None, Stored], recipes: Recipes) -> int:
    model = plan.model
    tables = table_bytes(model) * (1 if model.is_tied else 2)
    return _layers_bytes(plan, range(model.num_layers), stored, recipes) + tables + FLOAT_BYTES * model.hidden_size


def _layers_bytes(plan: ConversionPlan, layers: range, stored: Mapping[str | None, Stored], recipes: Recipes) -> int:
    kv_scales = SCALE_BYTES * KV_SCALES[plan.layout] if plan.kv_cache else 0
    if recipes:
        return sum(_layer_bytes(plan, layer, stored, recipes) + kv_scales for layer in layers)
    kinds = [plan.model.is_moe_layer(layer) for layer in layers]
    first = {kind: layers[kinds.index(kind)] for kind in set(kinds)}
    each = {kind: _layer_bytes(plan, layer, stored, recipes) + kv_scales for kind, layer in first.items()}
    return sum(each[kind] for kind in kinds)


def _layer_bytes(plan: ConversionPlan, layer: int, stored: Mapping[str | None, Stored], recipes: Recipes) -> int:
    model, layout = plan.model, plan.layout
    is_moe = model.is_moe_layer(layer)
    router = ROUTER_BYTES if layout == TRTLLM else FLOAT_BYTES
    total = small_bytes(model, is_moe=is_moe, router_bytes=router)
    reads_norm = {"attention.qkv"} | (set() if is_moe else {"mlp.fc"})
    for module in modules(model, plan.sharding, is_moe=is_moe, layout=layout):
        recipe = recipes.get((layer, module.group), plan.recipe)
        algo = recipe.quant_algo if recipe else None
        total += module_bytes(
            module,
            stored[algo],
            group_size=_group_size(plan, recipe),
            layout=layout,
            is_folded=layout == HF and algo in FOLDED and module.group in reads_norm,
        )
    return total


def _group_size(plan: ConversionPlan, recipe: QuantRecipe | None) -> int | None:
    """Return the group size of one recipe of a plan: the plan's own where the recipe's kernels take it."""
    if recipe is None or plan.group_size in recipe.group_sizes:
        return plan.group_size
    return min(recipe.group_sizes, default=None)
