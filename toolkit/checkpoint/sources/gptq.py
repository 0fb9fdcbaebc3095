"""GPTQ: qweight int32 [K*b/32, N], qzeros int32 [K/g, N*b/32], scales [K/g, N], g_idx int32 [K]; w = (q - z) * s.

The first version of the format stores z - 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint import packed
from toolkit.checkpoint.stored import Kind, SourceMethod
from toolkit.errors import PlanInfeasible
from toolkit.weights import Linear

if TYPE_CHECKING:
    from toolkit.checkpoint.shards import Shards

WIDTHS = (2, 4, 8)
#: checkpoint_format → what is missing from its stored zero points.
ZERO_OFFSETS = {"gptq": 1, "gptq_v2": 0}
#: GPTQ's integers, stored portably: AWQ's layout with prequant factors of 1.
MIDDLE, ALGO = 8, "W4A16_AWQ"


class GptqReader:
    """Reads linears of AutoGPTQ's and GPTQModel's layout."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.bits, self.said = int(config.get("bits") or 4), int(config.get("group_size") or 128)
        if self.bits not in WIDTHS:
            raise PlanInfeasible(
                f"trtk reads GPTQ checkpoints of {', '.join(map(str, WIDTHS))} bits; this one has {self.bits}.",
                hint="Give the original 16-bit weights.",
            )
        if config.get("desc_act") and self.said > 0:
            raise PlanInfeasible(
                "quantization_config says desc_act=true: groups in act-order are no runs of columns, "
                "which TensorRT-LLM's kernels need.",
                hint="Give a checkpoint made with desc_act=False, or the original 16-bit weights.",
            )
        form = str(config.get("checkpoint_format") or "gptq").lower()
        if form not in ZERO_OFFSETS:
            raise PlanInfeasible(
                f"trtk reads the checkpoint_format {' and '.join(ZERO_OFFSETS)}; this one is {form!r}.",
                hint="Save the model in the format gptq, or give the original 16-bit weights.",
            )
        self.offset = ZERO_OFFSETS[form]
        groups = f"in groups of {self.said}" if self.said > 0 else "by channel"
        self.title = f"GPTQ, {self.bits} bits {groups}"

    def kind(self, shards: Shards, module: str) -> Kind | None:
        """Return W4A16_AWQ where the integers have 4 bits and every zero point is the middle of the range."""
        if f"{module}.qweight" not in shards:
            return None
        size = self._group_size(shards, module)
        packed.need_ordered(shards, f"{module}.g_idx", size=size)
        if self.bits != 4:
            return Kind(algo=None, reason=f"it has {self.bits} bits")
        if not self._is_symmetric(shards, module):
            return Kind(algo=None, reason="its zero points are not all 8")
        return Kind(algo=ALGO, group_size=size)

    def read(self, shards: Shards, module: str) -> Linear:
        """Return signed integers with their scales, or the float weight where that is no 4-bit symmetric format."""
        packed.need_ordered(shards, f"{module}.g_idx", size=self._group_size(shards, module))
        scales = shards.tensor(f"{module}.scales").float().T.contiguous()
        words = shards.integers(f"{module}.qweight").T  # [N, K*b/32], lowest k first
        integers = packed.unpacked(words, self.bits)
        if self.bits == 4 and self._is_symmetric(shards, module):
            return Linear(algo=ALGO, weight=packed.centred(integers, MIDDLE), weight_scale=scales)
        zeros = packed.unpacked(shards.integers(f"{module}.qzeros"), self.bits).T.short() + self.offset
        return Linear(weight=packed.dequantized(integers, zeros, scales))

    def _is_symmetric(self, shards: Shards, module: str) -> bool:
        return packed.is_each(shards.integers(f"{module}.qzeros"), MIDDLE - self.offset)

    def _group_size(self, shards: Shards, module: str) -> int:
        name, inputs = f"{module}.scales", shards.shape(f"{module}.qweight")[0] * 32 // self.bits
        return packed.group_size(shards, name, inputs=inputs, groups=shards.shape(name)[0], said=self.said)


SOURCE = SourceMethod(name="gptq", open=GptqReader)
