"""Which part of a model each rank holds: pure index arithmetic on linears and layers.

Column-parallel parts (q, k, v, fc, gate) are cut along their rows, row-parallel ones (dense, proj) along their columns,
experts by number. Rank r of a world of tp * pp is tensor rank r % tp of stage r // tp.
"""

from __future__ import annotations

from toolkit.specs import ModelSpec, Sharding
from toolkit.weights import Linear, columns, rows

COLUMN_PARALLEL = {"q", "k", "v", "fc", "gate"}


def stage_of(sharding: Sharding, num_layers: int, layer: int) -> tuple[int, int]:
    """Return the pipeline stage that holds a layer, and the layer's number there; the first stages get one more."""
    short, longer = divmod(num_layers, sharding.pp)
    if layer < longer * (short + 1):
        return divmod(layer, short + 1)
    stage, local = divmod(layer - longer * (short + 1), short)
    return longer + stage, local


def local_part(spec: ModelSpec, sharding: Sharding, part: str, linear: Linear, *, tp_rank: int) -> Linear | None:
    """Return what a tensor rank holds of a part, or None when it holds none of it (another rank's expert)."""
    prefix, _, name = part.rpartition(".")
    count, index = sharding.tp, tp_rank
    if prefix.startswith("mlp.experts."):
        assert spec.moe, "only a mixture has experts"
        count = sharding.tp // sharding.ep
        index, owner = tp_rank // sharding.ep, tp_rank % sharding.ep
        here = spec.moe.num_experts // sharding.ep
        if int(prefix.rpartition(".")[2]) // here != owner:
            return None
    if count == 1:
        return linear
    if name in {"k", "v"} and count > spec.num_kv_heads:
        # More ranks than KV heads: neighbours share a head, which each holds whole.
        index, count = index * spec.num_kv_heads // count, spec.num_kv_heads
    size = linear.shape[0 if name in COLUMN_PARALLEL else 1] // count
    cut = rows if name in COLUMN_PARALLEL else columns
    return cut(linear, index * size, (index + 1) * size)


def local_expert(spec: ModelSpec, sharding: Sharding, expert: int) -> int:
    """Return an expert's number among those of its rank."""
    assert spec.moe, "only a mixture has experts"
    return expert % (spec.moe.num_experts // sharding.ep)
