"""Linears as OpenVINO constants: the checkpoint's own integers and scales, decompressed in the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.engine.openvino_nodes import number
from toolkit.errors import BuildError

if TYPE_CHECKING:
    import numpy as np

    from toolkit.engine.checkpoint_reader import CheckpointReader

    Array = np.ndarray[Any, Any]

#: trtllm-build's rule for float weights of weight-only formats: scale = amax/levels, integers -levels..levels-1.
LEVELS = {"W8A16": 128, "W4A16": 8}
FLOATS = {"F32", "F16", "BF16"}


class Weights:
    """Makes constants, and keeps the numpy buffers alive that OpenVINO does not copy."""

    def __init__(self, checkpoint: CheckpointReader) -> None:
        self.checkpoint = checkpoint
        self._alive: list[Any] = []

    def linear(self, inputs: Any, module: str) -> Any:
        """Return inputs [batch, length, K] times a module's weight, plus its bias: [batch, length, N] in float32."""
        from openvino import opset13 as ops

        scaled = self.prescaled(inputs, module)
        product = ops.matmul(scaled, self.matrix(module), transpose_a=False, transpose_b=True)
        if f"{module}.bias" in self.checkpoint:
            product = ops.add(product, self.vector(f"{module}.bias"))
        return product

    def prescaled(self, inputs: Any, module: str) -> Any:
        """Return inputs times a module's prequant factors, where it has any but ones; experts share the first row."""
        from openvino import opset13 as ops

        name = f"{module}.prequant_scaling_factor"
        if name not in self.checkpoint:
            return inputs
        factors = self.checkpoint.array(name)
        shared = factors.reshape(-1, factors.shape[-1])[0]
        return inputs if (shared == 1).all() else ops.multiply(inputs, self._floats(shared.reshape(1, 1, -1)))

    def vector(self, name: str) -> Any:
        """Return a tensor [N] as float32 [1, 1, N]."""
        return self._floats(self.checkpoint.array(name).reshape(1, 1, -1))

    def table(self, name: str) -> Any:
        """Return an unquantized matrix as float32."""
        return self._bits(self.checkpoint.stored(name), self._float_dtype(name))

    def scalar(self, value: float, *, like: str) -> Any:
        """Return a number as a tensor's type holds it: what multiplies that tensor in its own arithmetic."""
        import numpy as np

        return number(float(as_held(np.array([value], dtype=np.float32), self.checkpoint.dtype(like))[0]))

    def matrix(self, module: str, rows: slice = slice(None)) -> Any:
        """Return ROWS of a module's weight as float32: [N, K], of a mixture's experts [E, N, K]."""
        name, algo = f"{module}.weight", self.checkpoint.formats.algo_of(module)
        if algo == "W4A16_AWQ":
            scales = self.checkpoint.array(f"{module}.weights_scaling_factor")
            return self._int4(unpacked_rows(self.checkpoint.stored(name))[..., rows, :], scales[..., rows, :])
        dtype = self._float_dtype(name)
        if algo is None:
            return self._bits(self.checkpoint.stored(name)[..., rows, :], dtype)
        integers, scales = rounded(self.checkpoint.array(name)[..., rows, :], LEVELS[algo], dtype)
        return self._int4(integers, scales) if algo == "W4A16" else self._int8(integers, scales)

    def _float_dtype(self, name: str) -> str:
        """Return the type of a tensor that must hold floats, whether they are rounded here or not."""
        dtype = self.checkpoint.dtype(name)
        if dtype not in FLOATS:
            raise BuildError(
                f"{name} holds {dtype}, where config.json says that it holds floats.",
                hint="Integers laid out for one GPU run on that GPU alone; quantize again with trtk.",
            )
        return dtype

    def _bits(self, values: Array, dtype: str) -> Any:
        """Return a float32 node of values kept in the file's own 16 bits."""
        import numpy as np
        import openvino
        from openvino import opset13 as ops

        if dtype != "BF16":
            return self._floats(values)
        buffer = np.ascontiguousarray(values)
        self._alive.append(buffer)
        shape = openvino.Shape(list(buffer.shape))
        return ops.convert(ops.constant(openvino.Tensor(buffer, shape, openvino.Type.bf16)), "f32")

    def _floats(self, values: Array) -> Any:
        import numpy as np
        from openvino import opset13 as ops

        constant = ops.constant(np.ascontiguousarray(values))
        return ops.convert(constant, "f32") if values.dtype == np.float16 else constant

    def _int8(self, integers: Array, scales: Array) -> Any:
        from openvino import opset13 as ops

        return ops.multiply(ops.convert(ops.constant(integers), "f32"), self._floats(scales))

    def _int4(self, integers: Array, scales: Array) -> Any:
        """Return [..., N, K] of integers [..., N, K] and scales [..., N, groups]."""
        import numpy as np
        import openvino
        from openvino import opset13 as ops

        groups = scales.shape[-1]
        shape = [*integers.shape[:-1], groups, integers.shape[-1] // groups]
        buffer = np.ascontiguousarray(((integers[..., 0::2] & 0x0F) | (integers[..., 1::2] << 4)).view(np.uint8))
        self._alive.append(buffer)
        constant = ops.constant(openvino.Tensor(buffer, openvino.Shape(shape), openvino.Type.i4))
        factors = ops.constant(np.ascontiguousarray(scales[..., None].astype(np.float32)))
        grouped = ops.multiply(ops.convert(constant, "f32"), factors)
        return ops.reshape(grouped, ops.constant(np.array(integers.shape, dtype=np.int64)), special_zero=False)


def rounded(plain: Array, levels: int, dtype: str) -> tuple[Array, Array]:
    """Return integers [..., N, K] and scales [..., N, 1] by the builder's rule for float weights of DTYPE.

    The kernel's scale is stored in the weights' 16 bits, and rounding uses what is stored.
    """
    import numpy as np

    wide = plain.astype(np.float32)
    amax = np.abs(wide).max(axis=-1, keepdims=True)
    scales = np.where(amax == 0, np.float32(1), amax) / np.float32(levels)
    scales = as_held(scales, dtype)
    divisor = np.where(scales == 0, np.float32(1), scales.astype(np.float32))
    return np.clip(np.rint(wide / divisor), -levels, levels - 1).astype(np.int8), scales


def as_held(values: Array, dtype: str) -> Array:
    """Return float32 values as a tensor of DTYPE would hold them; bfloat16 as float32, ties to even."""
    import numpy as np

    if dtype == "F16":
        half: Array = values.astype(np.float16)
        return half
    if dtype != "BF16":
        return values
    bits = values.view(np.uint32)
    held: Array = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return held


def unpacked_rows(weight: Array) -> Array:
    """Return int8 [..., N, K] of AWQ's packed [..., N/2, K]: row 2i is the low nibble, row 2i+1 the high one."""
    import numpy as np

    plain = weight.view(np.uint8)
    pairs = np.stack((plain & 0x0F, plain >> 4), axis=-2).reshape(*weight.shape[:-2], -1, weight.shape[-1])
    integers: Array = (pairs ^ 8).astype(np.int8) - 8
    return integers
