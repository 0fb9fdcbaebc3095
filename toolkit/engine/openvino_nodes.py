"""Small OpenVINO nodes that every part of the graph is made of."""

from __future__ import annotations

from typing import Any


def parameter(name: str, rank: int, *, kind: str = "i64") -> Any:
    """Return an input of the model; the pipeline looks it up by its friendly name."""
    import openvino
    from openvino import opset13 as ops

    made = ops.parameter([-1] * rank, getattr(openvino.Type, kind), name=name)
    made.set_friendly_name(name)
    made.get_output_tensor(0).set_names({name})
    return made


def integers(values: Any, shape: list[int] | None = None) -> Any:
    """Return an int64 constant."""
    import numpy as np
    from openvino import opset13 as ops

    array = np.array(values, dtype=np.int64)
    return ops.constant(array if shape is None else array.reshape(shape))


def number(value: float) -> Any:
    """Return a float32 scalar."""
    import numpy as np
    from openvino import opset13 as ops

    return ops.constant(np.array(value, dtype=np.float32))


def true() -> Any:
    """Return the boolean scalar True."""
    import numpy as np
    from openvino import opset13 as ops

    return ops.constant(np.array(True))


def dimension(node: Any, axis: int) -> Any:
    """Return one dimension as an int64 tensor of shape [1]."""
    from openvino import opset13 as ops

    return ops.gather(ops.shape_of(node, "i64"), integers([axis]), integers(0, []))


def capped(values: Any, cap: float | None) -> Any:
    """Return cap * tanh(values / cap), or the values where there is no cap."""
    from openvino import opset13 as ops

    if cap is None:
        return values
    return ops.multiply(ops.tanh(ops.divide(values, number(cap))), number(cap))


def activated(values: Any, activation: str) -> Any:
    """Return an activation by Hugging Face's name of it."""
    from openvino import opset13 as ops

    if activation in {"silu", "swish"}:
        # OpenVINO's own Swish comes with a beta from Python, and is then not recognized inside a mixture of experts.
        return ops.multiply(values, ops.sigmoid(values))
    return ops.gelu(values, "tanh" if activation == "gelu_pytorch_tanh" else "erf")
