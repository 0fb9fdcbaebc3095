"""compressed-tensors (llm-compressor): packed 4- and 8-bit integers, E4M3, 8-bit integers; tensors say which.

weight_packed int32 [N, K*b/32] holds q + 2^(b-1) along K; weight_scale [N, K/g] or [N, 1]; weight_zero_point, where
there is one, int32 [N*b/32, K/g] packed along N; w = (q - z) * s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint import packed, stored_float8
from toolkit.checkpoint.stored import Kind, SourceMethod
from toolkit.errors import BuildError, PlanInfeasible
from toolkit.weights import Linear

if TYPE_CHECKING:
    from toolkit.checkpoint.shards import Shards

FORMATS = {"pack-quantized", "float-quantized", "int-quantized", "naive-quantized", "mixed-precision", "dense"}
INTEGERS_TITLE = "8-bit integers whose inputs are scaled when they come have no TensorRT-LLM layout"


class CompressedReader:
    """Reads linears of the formats above."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        form = str(config.get("format") or "dense")
        if form not in FORMATS:
            raise PlanInfeasible(
                f"The checkpoint's compressed-tensors format is {form!r}; trtk reads {', '.join(sorted(FORMATS))}.",
                hint="Give the model's original 16-bit weights.",
            )
        sparsity = config.get("sparsity_config") or {}
        if sparsity.get("format", "dense") != "dense" or config.get("transform_config"):
            what = "transform_config (rotated weights)" if config.get("transform_config") else "compressed sparsity"
            raise PlanInfeasible(f"trtk does not read {what}.", hint="Give the model's original 16-bit weights.")
        groups = [group.get("weights") or {} for group in (config.get("config_groups") or {}).values()]
        first = groups[0] if groups else {}
        block = first.get("block_structure") if first.get("strategy") == "block" else None
        self.block = (int(block[0]), int(block[1])) if block else None
        sizes = f" in groups of {first['group_size']}" if first.get("group_size") else ""
        self.title = f"compressed-tensors, {form}, {first.get('num_bits', 16)} bits{sizes}"

    def kind(self, shards: Shards, module: str) -> Kind | None:
        """Return what the module's tensors say."""
        if f"{module}.weight_packed" in shards:
            return self._packed_kind(shards, module)
        if stored_float8.is_float8(shards, module):
            return stored_float8.kind(shards, module, self.block)
        if f"{module}.weight" in shards and shards.dtype(f"{module}.weight") == "I8":
            return Kind(algo=None, reason=INTEGERS_TITLE)
        return None

    def read(self, shards: Shards, module: str) -> Linear:
        """Return signed integers or E4M3 with their scales, or the float weight where no format has them."""
        if f"{module}.weight_packed" in shards:
            return self._packed(shards, module)
        if stored_float8.is_float8(shards, module):
            return stored_float8.read(shards, module, self.block)
        integers = shards.integers(f"{module}.weight")
        scales = shards.tensor(f"{module}.weight_scale").float().reshape(-1, 1).expand(integers.shape[0], 1)
        zero = f"{module}.weight_zero_point"
        zeros = shards.integers(zero).reshape(-1, 1).expand_as(scales) if zero in shards else 0
        return Linear(weight=packed.dequantized(integers, zeros, scales))

    def _packed_kind(self, shards: Shards, module: str) -> Kind:
        _, size, bits = self._layout(shards, module)
        if bits != 4:
            return Kind(algo=None, reason=f"it has {bits} bits")
        if f"{module}.weight_zero_point" in shards:
            return Kind(algo=None, reason="it has zero points")
        return Kind(algo="W4A16_AWQ", group_size=size)

    def _packed(self, shards: Shards, module: str) -> Linear:
        (rows, columns), _, bits = self._layout(shards, module)
        middle = 1 << (bits - 1)
        scales = shards.tensor(f"{module}.weight_scale").float()
        integers = packed.unpacked(shards.integers(f"{module}.weight_packed"), bits)[:, :columns]
        zero = f"{module}.weight_zero_point"
        if bits == 4 and zero not in shards:
            return Linear(algo="W4A16_AWQ", weight=packed.centred(integers, middle), weight_scale=scales)
        zeros = packed.unpacked(shards.integers(zero).T, bits).T[:rows] if zero in shards else middle
        return Linear(weight=packed.dequantized(integers, zeros, scales))

    def _layout(self, shards: Shards, module: str) -> tuple[tuple[int, int], int, int]:
        """Return a packed weight's shape, its group size and its bits."""
        packed_name, scale_name = f"{module}.weight_packed", f"{module}.weight_scale"
        rows, columns = (int(size) for size in shards.integers(f"{module}.weight_shape"))
        bits = next((width for width in (2, 4, 8) if -(-columns * width // 32) == shards.shape(packed_name)[1]), 0)
        groups = shards.shape(scale_name)[-1]
        if not bits or shards.shape(packed_name)[0] != rows or columns % groups:
            raise BuildError(
                f"{packed_name} in {shards.folder} has shape {shards.shape(packed_name)} and {scale_name} "
                f"{shards.shape(scale_name)}, which fit no weight of {(rows, columns)}.",
                hint="The download is damaged, or the shards are of different models.",
            )
        packed.need_ordered(shards, f"{module}.weight_g_idx", size=columns // groups)
        return (rows, columns), columns // groups, bits


SOURCE = SourceMethod(name="compressed-tensors", aliases=("compressed_tensors",), open=CompressedReader)
