"""RMSNorm as OpenVINO nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.engine.openvino_nodes import integers, number

if TYPE_CHECKING:
    from toolkit.engine.openvino_weights import Weights


def normed(hidden: Any, weights: Weights, module: str, *, eps: float) -> Any:
    """Return RMSNorm over the last dimension times the module's weight (Zhang & Sennrich 2019)."""
    from openvino import opset13 as ops

    mean = ops.reduce_mean(ops.power(hidden, number(2.0)), integers([-1]), keep_dims=True)
    scaled = ops.multiply(hidden, ops.divide(number(1.0), ops.sqrt(ops.add(mean, number(eps)))))
    return ops.multiply(scaled, weights.vector(f"{module}.weight"))
