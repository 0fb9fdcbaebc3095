"""Linears as OpenVINO constants: the checkpoint's own integers and scales, decompressed in the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from toolkit.engine.checkpoint_reader import CheckpointReader

#: trtllm-build's rule for W8A16: scale = amax/128, integers -128..127.
INT8_LEVELS = 128


class Weights:
    """Makes constants, and keeps the numpy buffers behind 4-bit ones alive: OpenVINO does not copy them."""

    def __init__(self, checkpoint: CheckpointReader) -> None:
        self.checkpoint = checkpoint
        self.quant_algo = checkpoint.config["quantization"]["quant_algo"]
        self._alive: list[Any] = []

    def linear(self, inputs: Any, module: str) -> Any:
        """Return inputs [batch, length, K] times a module's weight, plus its bias: [batch, length, N] in float32."""
        from openvino import opset13 as ops

        prequant = f"{module}.prequant_scaling_factor"
        if prequant in self.checkpoint:
            factors = self.checkpoint.array(prequant)
            if (factors != 1).any():
                inputs = ops.multiply(inputs, self.float_constant(factors.reshape(1, 1, -1)))
        product = ops.matmul(inputs, self._weight(module), transpose_a=False, transpose_b=True)
        if f"{module}.bias" in self.checkpoint:
            product = ops.add(product, self.float_constant(self.checkpoint.array(f"{module}.bias").reshape(1, 1, -1)))
        return product

    def _weight(self, module: str) -> Any:
        weight = self.checkpoint.array(f"{module}.weight")
        if module == "lm_head" or self.quant_algo is None:
            return self.float_constant(weight)
        if self.quant_algo == "W4A16_AWQ":
            return self._int4(weight, self.checkpoint.array(f"{module}.weights_scaling_factor"))
        return self._int8(weight)

    def float_constant(self, values: np.ndarray[Any, Any]) -> Any:
        """Return a float32 node of values kept in the file's 16 bits where they came in 16 bits."""
        import numpy as np
        from openvino import opset13 as ops

        constant = ops.constant(np.ascontiguousarray(values))
        return ops.convert(constant, "f32") if values.dtype == np.float16 else constant

    def _int8(self, weight: np.ndarray[Any, Any]) -> Any:
        import numpy as np
        from openvino import opset13 as ops

        plain = weight.astype(np.float32)
        amax = np.abs(plain).max(axis=1, keepdims=True)
        # The kernel's scale is stored in 16 bits, and rounding uses what is stored.
        scales = (np.where(amax == 0, 1, amax) / INT8_LEVELS).astype(np.float16)
        integers = np.clip(np.rint(plain / scales.astype(np.float32)), -INT8_LEVELS, INT8_LEVELS - 1).astype(np.int8)
        return ops.multiply(ops.convert(ops.constant(integers), "f32"), ops.convert(ops.constant(scales), "f32"))

    def _int4(self, weight: np.ndarray[Any, Any], scales: np.ndarray[Any, Any]) -> Any:
        import numpy as np
        import openvino
        from openvino import opset13 as ops

        integers = unpacked_rows(weight)
        rows, columns = integers.shape
        groups = scales.shape[1]
        shape = [rows, groups, columns // groups]
        low, high = integers[:, 0::2] & 0x0F, integers[:, 1::2] & 0x0F
        buffer = np.ascontiguousarray((low | (high << 4)).astype(np.uint8))
        self._alive.append(buffer)
        constant = ops.constant(openvino.Tensor(buffer, openvino.Shape(shape), openvino.Type.i4))
        factors = ops.constant(np.ascontiguousarray(scales.reshape(rows, groups, 1).astype(np.float32)))
        grouped = ops.multiply(ops.convert(constant, "f32"), factors)
        return ops.reshape(grouped, ops.constant(np.array([rows, columns], dtype=np.int64)), special_zero=False)


def unpacked_rows(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return int8 [N, K] of AWQ's packed [N/2, K]: row 2i is the low nibble, row 2i+1 the high one."""
    import numpy as np

    plain = weight.view(np.uint8)
    pairs = np.stack((plain & 0x0F, plain >> 4), axis=1).reshape(-1, weight.shape[1])
    integers: np.ndarray[Any, Any] = (pairs ^ 8).astype(np.int8) - 8
    return integers
