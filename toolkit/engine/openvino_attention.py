"""Attention as OpenVINO nodes, in the shape that ContinuousBatchingPipeline turns into paged attention.

That shape: keys and values through ReadValue, Gather(beam_idx) and Concat, with Assign as sinks; masks made from the
shapes of attention_mask and input_ids; scaled_dot_product_attention. Paged attention drops the mask, and recognizes a
sliding window by the very form of the nodes that make it (openvino_paged.py checks that it did).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.engine.openvino_nodes import dimension, integers, number, true
from toolkit.engine.openvino_norm import normed
from toolkit.rope import rotary_of

if TYPE_CHECKING:
    from toolkit.engine.openvino_weights import Weights
    from toolkit.specs import ModelSpec

#: Instead of minus infinity, of which a row of nothing else would make NaN.
HIDDEN = -3.0e38
END = 2**31 - 1


class Attention:
    """What the attention of all layers shares: masks and rotary tables, made once for each kind of layer."""

    def __init__(self, spec: ModelSpec, weights: Weights, inputs: dict[str, Any], *, max_seq_len: int) -> None:
        self.spec, self.weights, self.inputs = spec, weights, inputs
        self.max_seq_len = max_seq_len
        self.sinks: list[Any] = []
        self._masks: dict[int | None, Any] = {}
        self._tables: dict[bool, tuple[Any, Any]] = {}

    def __call__(self, hidden: Any, index: int) -> Any:
        """Return the attention of layer INDEX to normed hidden states [batch, length, hidden]."""
        from openvino import opset13 as ops

        spec, prefix = self.spec, f"transformer.layers.{index}.attention."
        fused = self.weights.linear(hidden, prefix + "qkv")
        heads = (spec.num_heads, spec.num_kv_heads, spec.num_kv_heads)
        sizes = integers([count * spec.head_dim for count in heads])
        queries, keys, values = (
            self._by_head(part, count)
            for part, count in zip(ops.variadic_split(fused, integers(-1, []), sizes).outputs(), heads, strict=True)
        )
        if spec.has_qk_norm:
            queries = normed(queries, self.weights, prefix + "q_layernorm", eps=spec.norm_eps)
            keys = normed(keys, self.weights, prefix + "k_layernorm", eps=spec.norm_eps)
        window = spec.window_of(index)
        tables = self._rotary(is_local=window is not None)
        dim = spec.rotary_dim or spec.head_dim
        queries, keys = (rotated(part, tables, dim=dim, untouched=spec.head_dim - dim) for part in (queries, keys))
        keys, values = self._remembered(keys, f"key.{index}"), self._remembered(values, f"value.{index}")
        scale = [] if spec.attention_scale is None else [number(spec.attention_scale)]
        context = ops.scaled_dot_product_attention(
            queries, self._repeated(keys), self._repeated(values), self._mask(window), *scale, causal=False
        )
        context = ops.transpose(context, integers([0, 2, 1, 3]))
        context = ops.reshape(context, integers([0, 0, spec.num_heads * spec.head_dim]), special_zero=True)
        return self.weights.linear(context, prefix + "dense")

    def _by_head(self, flat: Any, heads: int) -> Any:
        """[batch, length, heads * head_dim] → [batch, heads, length, head_dim]."""
        from openvino import opset13 as ops

        split = ops.reshape(flat, integers([0, 0, heads, self.spec.head_dim]), special_zero=True)
        return ops.transpose(split, integers([0, 2, 1, 3]))

    def _rotary(self, *, is_local: bool) -> tuple[Any, Any]:
        """Return cos and sin, [batch, 1, length, rotary_dim]."""
        import numpy as np
        from openvino import opset13 as ops

        if is_local not in self._tables:
            frequencies, factor = rotary_of(self.spec, length=self.max_seq_len, is_local=is_local)
            both_halves = np.array([*frequencies, *frequencies], dtype=np.float32).reshape(1, 1, 1, -1)
            positions = ops.convert(ops.unsqueeze(self.inputs["position_ids"], integers([1, 3])), "f32")
            angles = ops.multiply(positions, ops.constant(both_halves))
            cos, sin = ops.cos(angles), ops.sin(angles)
            if factor != 1.0:
                cos, sin = ops.multiply(cos, number(factor)), ops.multiply(sin, number(factor))
            self._tables[is_local] = cos, sin
        return self._tables[is_local]

    def _mask(self, window: int | None) -> Any:
        """Return the float mask [batch, 1, length, total]: 0 where a query may look, HIDDEN elsewhere."""
        if window not in self._masks:
            self._masks[window] = _mask(self.inputs, window)
        return self._masks[window]

    def _remembered(self, fresh: Any, name: str) -> Any:
        """Return past and fresh keys or values, and keep them for the next call."""
        import openvino
        from openvino import opset13 as ops
        from openvino.op.util import Variable, VariableInfo

        heads, size = self.spec.num_kv_heads, self.spec.head_dim
        info = VariableInfo()
        info.data_shape, info.data_type = openvino.PartialShape([-1, heads, -1, size]), openvino.Type.f32
        info.variable_id = name
        variable = Variable(info)
        batch = dimension(self.inputs["input_ids"], 0)
        empty_shape = ops.concat([batch, integers([heads]), integers([0]), integers([size])], 0)
        past = ops.read_value(ops.broadcast(number(0.0), empty_shape), variable)
        past = ops.gather(past, self.inputs["beam_idx"], integers(0, []))
        together = ops.concat([past, fresh], 2)
        self.sinks.append(ops.assign(together, variable))
        return together

    def _repeated(self, kv: Any) -> Any:
        """Repeat each KV head for the query heads that share it."""
        from openvino import opset13 as ops

        heads, kv_heads, size = self.spec.num_heads, self.spec.num_kv_heads, self.spec.head_dim
        if kv_heads == heads:
            return kv
        shape = [dimension(kv, 0), integers([kv_heads, heads // kv_heads]), dimension(kv, 2), integers([size])]
        wide = ops.broadcast(ops.unsqueeze(kv, integers([2])), ops.concat(shape, 0), "BIDIRECTIONAL")
        return ops.reshape(wide, integers([0, heads, -1, size]), special_zero=True)


def rotated(heads: Any, tables: tuple[Any, Any], *, dim: int, untouched: int) -> Any:
    """Return heads [batch, heads, length, dim + untouched], of which the first DIM are turned by position.

    In the form that OpenVINO fuses into one operation.
    """
    from openvino import opset13 as ops

    cos, sin = tables
    turning, rest = heads, []
    if untouched:
        turning, *rest = ops.variadic_split(heads, integers(3, []), integers([dim, untouched])).outputs()
    first, second = ops.variadic_split(turning, integers(3, []), integers([dim // 2, dim // 2])).outputs()
    swapped = ops.concat([ops.multiply(second, number(-1.0)), first], -1)
    turned = ops.add(ops.multiply(turning, cos), ops.multiply(swapped, sin))
    return ops.concat([turned, *rest], -1) if rest else turned


def _mask(inputs: dict[str, Any], window: int | None) -> Any:
    from openvino import opset13 as ops

    total, length = dimension(inputs["attention_mask"], 1), dimension(inputs["input_ids"], 1)
    end, one = ops.squeeze(total, integers([0])), integers(1, [])
    keys = ops.unsqueeze(ops.range(integers(0, []), end, one, "i64"), integers([0, 1, 2]))
    first = ops.squeeze(ops.subtract(total, length), integers([0]))
    queries = ops.unsqueeze(ops.range(first, end, one, "i64"), integers([0, 1, 3]))
    is_past = ops.less_equal(keys, queries)
    is_text = ops.unsqueeze(ops.not_equal(inputs["attention_mask"], integers(0, [])), integers([1, 2]))
    if not window:
        return _penalty(ops.bitwise_and(is_past, is_text), inputs)
    # Whatever looks superfluous here is part of the form by which OpenVINO knows a window.
    is_near = ops.bitwise_and(true(), ops.greater(keys, ops.add(queries, integers(-window, []))))
    is_seen = ops.bitwise_and(is_text, ops.bitwise_and(is_near, is_past))
    penalty = _penalty(ops.bitwise_and(is_seen, true()), inputs)
    return ops.slice(penalty, integers([0]), integers([END]), integers([1]), integers([3]))


def _penalty(is_seen: Any, inputs: dict[str, Any]) -> Any:
    from openvino import opset13 as ops

    batch, length = dimension(inputs["input_ids"], 0), dimension(inputs["input_ids"], 1)
    shape = ops.concat([batch, integers([1]), length, dimension(inputs["attention_mask"], 1)], 0)
    return ops.select(ops.broadcast(is_seen, shape), number(0.0), number(HIDDEN))
