"""A mixture of experts as OpenVINO nodes: every expert on every token, summed by the router's shares.

Written down as batched matrix products over tiled tokens, the form in which OpenVINO's CPU plugin recognizes a mixture
and computes only the experts that a token was sent to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.engine.openvino_nodes import activated, dimension, integers, number

if TYPE_CHECKING:
    from toolkit.engine.openvino_weights import Weights
    from toolkit.specs import ModelSpec, MoeSpec


def mixture(spec: ModelSpec, weights: Weights, hidden: Any, prefix: str) -> Any:
    """Return what the mixture PREFIX makes of normed hidden states [batch, length, hidden]."""
    from openvino import opset13 as ops

    assert spec.moe, "the caller checked"
    tokens = ops.reshape(hidden, integers([-1, spec.hidden_size]), special_zero=False)
    logits = ops.matmul(tokens, weights.table(f"{prefix}mlp.router.weight"), transpose_a=False, transpose_b=True)
    lengths = [dimension(hidden, 0), dimension(hidden, 1)]
    shape = ops.concat([integers([spec.moe.num_experts]), *lengths], 0)
    shares = ops.unsqueeze(ops.reshape(_shares(spec.moe, logits), shape, special_zero=False), integers(-1, []))
    shape = ops.concat([shape, integers([spec.hidden_size])], 0)
    outputs = ops.reshape(_experts(spec, weights, hidden, prefix), shape, special_zero=False)
    summed = ops.reduce_sum(ops.multiply(outputs, shares), integers([0]), keep_dims=False)
    if spec.moe.shared_intermediate_size:
        summed = ops.add(summed, _shared(spec, weights, hidden, prefix))
    return summed


def _shares(moe: MoeSpec, logits: Any) -> Any:
    """Return each expert's share in each token, [experts, tokens]; 0 where a token was not sent."""
    from openvino import opset13 as ops

    shares, chosen = ops.topk(ops.softmax(logits, -1), integers(moe.top_k, []), -1, "max", "value", "i64").outputs()
    if moe.is_topk_normalized:
        shares = ops.divide(shares, ops.reduce_sum(shares, integers([-1]), keep_dims=True))
    nothing = ops.broadcast(number(0.0), ops.concat([dimension(chosen, 0), integers([moe.num_experts])], 0))
    return ops.transpose(ops.scatter_elements_update(nothing, chosen, shares, integers(1, [])), integers([1, 0]))


def _experts(spec: ModelSpec, weights: Weights, hidden: Any, prefix: str) -> Any:
    """Return what each expert makes of each token, [experts, tokens, hidden]."""
    from openvino import opset13 as ops

    assert spec.moe, "the caller checked"
    count, inner = spec.moe.num_experts, spec.moe.intermediate_size
    scaled = weights.prescaled(hidden, f"{prefix}mlp.fc")
    tokens = ops.reshape(scaled, integers([-1, spec.hidden_size]), special_zero=False)
    tiled = ops.tile(tokens, integers([count, 1]))
    tiled = ops.reshape(tiled, integers([count, -1, spec.hidden_size]), special_zero=False)
    # The file stacks what is multiplied above what is activated.
    up, gate = (
        ops.matmul(tiled, weights.matrix(f"{prefix}mlp.fc", rows), transpose_a=False, transpose_b=True)
        for rows in (slice(0, inner), slice(inner, 2 * inner))
    )
    joined = weights.prescaled(ops.multiply(activated(gate, spec.activation), up), f"{prefix}mlp.proj")
    return ops.matmul(joined, weights.matrix(f"{prefix}mlp.proj"), transpose_a=False, transpose_b=True)


def _shared(spec: ModelSpec, weights: Weights, hidden: Any, prefix: str) -> Any:
    """Return the expert that every token passes, times its gate."""
    from openvino import opset13 as ops

    gate = ops.matmul(
        hidden, weights.table(f"{prefix}mlp.shared_expert_gate.weight"), transpose_a=False, transpose_b=True
    )
    return ops.multiply(ops.sigmoid(gate), dense(spec, weights, hidden, f"{prefix}mlp.shared_expert."))


def dense(spec: ModelSpec, weights: Weights, hidden: Any, prefix: str) -> Any:
    """Return proj(act(fc) * gate) of the gated MLP PREFIX, whose fc may be [gate ; fc] in one."""
    from openvino import opset13 as ops

    first = weights.linear(hidden, f"{prefix}fc")
    if f"{prefix}gate.weight" in weights.checkpoint:
        gate = weights.linear(hidden, f"{prefix}gate")
    else:
        gate, first = ops.split(first, integers(-1, []), 2).outputs()
    return weights.linear(ops.multiply(activated(first, spec.activation), gate), f"{prefix}proj")
