"""A decoder as an OpenVINO graph, in the shape that ContinuousBatchingPipeline turns into paged attention.

Four things that shape needs: the Parameters' friendly names; keys and values through ReadValue, Gather(beam_idx) and
Concat, with Assign as sinks; a mask made from the shapes of attention_mask and input_ids; scaled_dot_product_attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.engine.openvino_weights import Weights
from toolkit.rope import inverse_frequencies

if TYPE_CHECKING:
    from toolkit.engine.checkpoint_reader import CheckpointReader


def decoder_model(checkpoint: CheckpointReader) -> tuple[Any, Weights]:
    """Return the stateful openvino.Model of a checkpoint, and the weights that must outlive its saving."""
    import openvino
    from openvino import opset13 as ops

    graph = _Graph(checkpoint)
    hidden = ops.gather(
        graph.weights.float_constant(checkpoint.array("transformer.vocab_embedding.weight")),
        graph.inputs["input_ids"],
        _integers(0, []),
    )
    for index in range(checkpoint.config["num_hidden_layers"]):
        hidden = graph.layer(hidden, index)
    hidden = graph.norm(hidden, "transformer.ln_f")
    logits = graph.weights.linear(hidden, "lm_head")
    result = ops.result(logits)
    result.get_output_tensor(0).set_names({"logits"})
    model = openvino.Model([result], graph.sinks, list(graph.inputs.values()), "decoder")
    return model, graph.weights


class _Graph:
    def __init__(self, checkpoint: CheckpointReader) -> None:
        config = checkpoint.config
        self.checkpoint = checkpoint
        self.weights = Weights(checkpoint)
        self.eps = config["norm_epsilon"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_dim = config["head_size"]
        self.sliding_window = config.get("sliding_window")
        self.inputs = {
            name: _parameter(name, rank)
            for name, rank in (("input_ids", 2), ("attention_mask", 2), ("position_ids", 2))
        }
        self.inputs["beam_idx"] = _parameter("beam_idx", 1, kind="i32")
        self.sinks: list[Any] = []
        self.cos, self.sin = self._rotary(config)
        self.mask = self._causal_mask()

    def _rotary(self, config: dict[str, Any]) -> tuple[Any, Any]:
        """Return cos and sin, [batch, 1, length, head_dim]."""
        import numpy as np
        from openvino import opset13 as ops

        frequencies = inverse_frequencies(self.head_dim, config["rotary_base"], config["rotary_scaling"])
        both_halves = np.array([*frequencies, *frequencies], dtype=np.float32).reshape(1, 1, 1, -1)
        positions = ops.convert(ops.unsqueeze(self.inputs["position_ids"], _integers([1, 3])), "f32")
        angles = ops.multiply(positions, ops.constant(both_halves))
        return ops.cos(angles), ops.sin(angles)

    def _causal_mask(self) -> Any:
        """Return the float mask [batch, 1, length, total]: 0 where a query may look, -inf-like elsewhere."""
        from openvino import opset13 as ops

        total = _dimension(self.inputs["attention_mask"], 1)
        length = _dimension(self.inputs["input_ids"], 1)
        keys = ops.range(_integers(0, []), ops.squeeze(total, _integers([0])), _integers(1, []), "i64")
        first = ops.squeeze(ops.subtract(total, length), _integers([0]))
        queries = ops.range(first, ops.squeeze(total, _integers([0])), _integers(1, []), "i64")
        queries = ops.unsqueeze(queries, _integers([1]))
        is_hidden = ops.greater(ops.unsqueeze(keys, _integers([0])), queries)
        if self.sliding_window:
            oldest = ops.subtract(queries, _integers(self.sliding_window, []))
            is_hidden = ops.logical_or(is_hidden, ops.less_equal(ops.unsqueeze(keys, _integers([0])), oldest))
        is_hidden = ops.unsqueeze(is_hidden, _integers([0, 1]))
        padded = ops.equal(self.inputs["attention_mask"], _integers(0, []))
        is_hidden = ops.logical_or(is_hidden, ops.unsqueeze(padded, _integers([1, 2])))
        return ops.select(is_hidden, _float(-3.0e38), _float(0.0))

    def norm(self, hidden: Any, module: str) -> Any:
        """Return RMSNorm(hidden) times the module's weight."""
        from openvino import opset13 as ops

        mean = ops.reduce_mean(ops.power(hidden, _float(2.0)), _integers([-1]), keep_dims=True)
        scaled = ops.multiply(hidden, ops.divide(_float(1.0), ops.sqrt(ops.add(mean, _float(self.eps)))))
        weight = self.checkpoint.array(f"{module}.weight").reshape(1, 1, -1)
        return ops.multiply(scaled, self.weights.float_constant(weight))

    def layer(self, hidden: Any, index: int) -> Any:
        """Return a decoder layer's output."""
        from openvino import opset13 as ops

        prefix = f"transformer.layers.{index}."
        hidden = ops.add(hidden, self._attention(self.norm(hidden, prefix + "input_layernorm"), index, prefix))
        inputs = self.norm(hidden, prefix + "post_layernorm")
        activated = ops.swish(self.weights.linear(inputs, prefix + "mlp.fc"))
        inner = ops.multiply(activated, self.weights.linear(inputs, prefix + "mlp.gate"))
        return ops.add(hidden, self.weights.linear(inner, prefix + "mlp.proj"))

    def _attention(self, inputs: Any, index: int, prefix: str) -> Any:
        from openvino import opset13 as ops

        fused = self.weights.linear(inputs, prefix + "attention.qkv")
        sizes = [heads * self.head_dim for heads in (self.heads, self.kv_heads, self.kv_heads)]
        queries, keys, values = ops.variadic_split(fused, _integers(-1, []), _integers(sizes)).outputs()
        queries = self._rotated(self._by_head(queries, self.heads))
        keys = self._remembered(self._rotated(self._by_head(keys, self.kv_heads)), f"key.{index}")
        values = self._remembered(self._by_head(values, self.kv_heads), f"value.{index}")
        context = ops.scaled_dot_product_attention(
            queries, self._repeated(keys), self._repeated(values), self.mask, causal=False
        )
        context = ops.transpose(context, _integers([0, 2, 1, 3]))
        context = ops.reshape(context, _integers([0, 0, self.heads * self.head_dim]), special_zero=True)
        return self.weights.linear(context, prefix + "attention.dense")

    def _by_head(self, flat: Any, heads: int) -> Any:
        """[batch, length, heads * head_dim] → [batch, heads, length, head_dim]."""
        from openvino import opset13 as ops

        split = ops.reshape(flat, _integers([0, 0, heads, self.head_dim]), special_zero=True)
        return ops.transpose(split, _integers([0, 2, 1, 3]))

    def _rotated(self, heads: Any) -> Any:
        from openvino import opset13 as ops

        first, second = ops.split(heads, _integers(-1, []), 2).outputs()
        turned = ops.concat([ops.multiply(second, _float(-1.0)), first], -1)
        return ops.add(ops.multiply(heads, self.cos), ops.multiply(turned, self.sin))

    def _remembered(self, fresh: Any, name: str) -> Any:
        """Return past and fresh keys or values, and keep them for the next call."""
        import openvino
        from openvino import opset13 as ops
        from openvino.op.util import Variable, VariableInfo

        shape = openvino.PartialShape([-1, self.kv_heads, -1, self.head_dim])
        info = VariableInfo()
        info.data_shape, info.data_type, info.variable_id = shape, openvino.Type.f32, name
        variable = Variable(info)
        batch = _dimension(self.inputs["input_ids"], 0)
        empty_shape = ops.concat([batch, _integers([self.kv_heads]), _integers([0]), _integers([self.head_dim])], 0)
        past = ops.read_value(ops.broadcast(_float(0.0), empty_shape), variable)
        past = ops.gather(past, self.inputs["beam_idx"], _integers(0, []))
        together = ops.concat([past, fresh], 2)
        self.sinks.append(ops.assign(together, variable))
        return together

    def _repeated(self, kv: Any) -> Any:
        """Repeat each KV head for the query heads that share it."""
        from openvino import opset13 as ops

        if self.kv_heads == self.heads:
            return kv
        repeats = self.heads // self.kv_heads
        wide = ops.unsqueeze(kv, _integers([2]))
        target = ops.concat(
            [_dimension(kv, 0), _integers([self.kv_heads, repeats]), _dimension(kv, 2), _integers([self.head_dim])], 0
        )
        wide = ops.broadcast(wide, target, "BIDIRECTIONAL")
        return ops.reshape(wide, _integers([0, self.heads, -1, self.head_dim]), special_zero=True)


def _parameter(name: str, rank: int, *, kind: str = "i64") -> Any:
    import openvino
    from openvino import opset13 as ops

    made = ops.parameter([-1] * rank, getattr(openvino.Type, kind), name=name)
    made.set_friendly_name(name)
    made.get_output_tensor(0).set_names({name})
    return made


def _integers(values: Any, shape: list[int] | None = None) -> Any:
    import numpy as np
    from openvino import opset13 as ops

    array = np.array(values, dtype=np.int64)
    return ops.constant(array if shape is None else array.reshape(shape))


def _float(value: float) -> Any:
    import numpy as np
    from openvino import opset13 as ops

    return ops.constant(np.array(value, dtype=np.float32))


def _dimension(node: Any, axis: int) -> Any:
    """Return one dimension as an int64 tensor of shape [1]."""
    from openvino import opset13 as ops

    return ops.gather(ops.shape_of(node, "i64"), _integers([axis]), _integers(0, []))
